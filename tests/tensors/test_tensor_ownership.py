"""Who owns the memory of a tensor on the way into a record."""

import io
import sys
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from arrays import check_taken, entered
from tensors.values import bits, model
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

import flatrecord.torch
from flatrecord import Array, ParametersRecord


def own_view() -> torch.Tensor:
    tensor = torch.zeros(100)
    view = tensor[:]
    del tensor
    return view


def loaded() -> torch.Tensor:
    file = io.BytesIO()
    torch.save(torch.zeros(100), file)
    file.seek(0)
    return torch.load(file)


def read_as_numpy() -> torch.Tensor:
    tensor = torch.zeros(100)
    tensor.numpy()  # which marks the storage as not resizable
    return tensor


def out_of_a_record(value) -> torch.Tensor:
    return ParametersRecord({"x": value}).to_torch_state_dict(keep_input=False)["x"]


TAKEN = {
    "owner": lambda: torch.zeros(100),
    "bfloat16": lambda: torch.zeros(100, dtype=torch.bfloat16),
    "parameter": lambda: nn.Parameter(torch.zeros(100)),
    "requires grad": lambda: torch.zeros(100, requires_grad=True),
    "detached": lambda: torch.zeros(100, requires_grad=True).detach(),
    "transposed": lambda: torch.zeros(10, 5).t(),
    "reshaped": lambda: torch.zeros(10, 5).view(25, 2),
    "last view": own_view,
    "view of a view": lambda: torch.zeros(10, 5).view(25, 2).t(),
    "most of its storage": lambda: torch.zeros(100)[10:],
    "another dtype": lambda: torch.zeros(100).view(torch.int32),
    "empty": lambda: torch.zeros(0, 3),
    "0-d": lambda: torch.tensor(3.0),
    "inference": lambda: torch.inference_mode()(lambda: torch.zeros(100))(),
    "loaded": loaded,
    "read as NumPy": read_as_numpy,
    "state_dict of a model that is gone": lambda: nn.Linear(10, 10).state_dict()["weight"],
    "conjugate, copied": lambda: torch.zeros(10, dtype=torch.complex64).conj(),
    "negative, copied": lambda: torch.zeros(10, dtype=torch.complex64).conj().imag,
    "tensor out of a record": lambda: out_of_a_record(torch.zeros(100)),
    "ndarray out of a record": lambda: out_of_a_record(np.zeros(100)),
    "snapshot out of a record": lambda: out_of_a_record(np.zeros(200)[::2]),
    "received, out of a record": lambda: out_of_a_record(Array("float64", (9,), "numpy.ndarray", Array(np.zeros(9)).data)),
}
COPIED = {
    "strided": lambda: torch.zeros(10, 10)[:, ::2],
    "expanded": lambda: torch.zeros(1).expand(5),
    "channels last": lambda: torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "small part of its storage": lambda: torch.zeros(100)[:10],
    "memory of an ndarray": lambda: torch.from_numpy(np.zeros(100)),
    "memory of a bytearray": lambda: torch.frombuffer(bytearray(400), dtype=torch.float32),
    "memory by DLPack": lambda: torch.from_dlpack(np.zeros(100)),
    "shared with other processes": lambda: torch.zeros(100).share_memory_(),
}


@pytest.mark.parametrize("how", TAKEN)
def test_what_nobody_else_holds_is_taken(how):
    if "copied" in how:
        assert entered(TAKEN[how]) == "taken"
    else:
        check_taken(TAKEN[how])


@pytest.mark.parametrize("how", COPIED)
def test_what_cannot_be_taken_is_copied(how):
    expected = bits(COPIED[how]())
    record = ParametersRecord({"x": COPIED[how]()})
    assert record["x"].ownership == "snapshot" and bits(record["x"].torch()) == expected


HOLDERS = {
    "itself": lambda t: t,
    "slice": lambda t: t[:1],
    "detached": lambda t: t.detach(),
    "data": lambda t: t.data,
    "storage": lambda t: t.untyped_storage(),
    "ndarray": lambda t: t.numpy(),
    "DLPack": lambda t: t.__dlpack__(),
    "weak reference": weakref.ref,
    "weak reference to the storage": lambda t: weakref.ref(t.untyped_storage()),
    "ndarray by DLPack": np.from_dlpack,
    "weak pointer to the storage": lambda t: StorageWeakRef(t.untyped_storage()),
    "another record": lambda t: ParametersRecord({"y": t.detach()}, copy=False),
    "transposed": lambda t: t.t(),
}


@pytest.mark.parametrize("how", HOLDERS)
def test_a_record_does_not_change_behind_its_back(how):
    source = {key: torch.zeros(8, 4) for key in "abc"}
    held = HOLDERS[how](source["b"])
    record = ParametersRecord(source)
    assert [array.ownership for array in record.values()] == ["taken", "snapshot", "taken"]
    assert held is not None


def test_a_weak_pointer_to_a_storage_that_was_lent():
    tensor = out_of_a_record(np.zeros(100))
    pointer = StorageWeakRef(tensor.untyped_storage())
    source = {"x": tensor}
    del tensor
    assert ParametersRecord(source)["x"].ownership == "snapshot" and pointer is not None


def test_a_class_that_brings_its_tensors_back():
    class Kept(torch.Tensor):
        kept: ClassVar[list] = []

        def __del__(self):
            self.kept.append(self)

    record = ParametersRecord({"x": torch.zeros(100).as_subclass(Kept)})
    assert record["x"].ownership == "snapshot"
    Kept.kept.pop().fill_(7)
    assert not record["x"].numpy().any()


def test_a_borrowed_storage_stays_where_it_is():
    mine = [torch.zeros(100), torch.zeros(100, dtype=torch.bfloat16)]
    borrowed = [Array(mine[0], copy=False), ParametersRecord({"x": mine[1]}, True, copy=False)["x"]]
    for tensor, array in zip(mine, borrowed, strict=True):
        with pytest.raises(RuntimeError, match="not resizable"):
            tensor.untyped_storage().resize_(0)
        assert not array.numpy().any()
    del borrowed, array, tensor
    assert entered(mine.pop) == entered(mine.pop) == "taken"


def test_an_autograd_graph_holds_what_it_saved():
    weight = torch.ones(5, requires_grad=True)
    loss = (weight * weight).sum()
    source = {"weight": weight}
    del weight
    assert ParametersRecord(source)["weight"].ownership == "snapshot"
    loss.backward()


def test_a_base_that_somebody_holds_counts_for_its_views():
    base = torch.zeros(100)
    assert entered(lambda: base.view(10, 10)) == "snapshot"
    views = list(torch.zeros(90).chunk(3))
    record = ParametersRecord({"q": views.pop()})
    assert record["q"].ownership == "snapshot" and len(views) == 2


def test_a_gradient_is_let_go():
    parameter = nn.Parameter(torch.zeros(100))
    parameter.grad = torch.ones(100)
    gradient = weakref.ref(parameter.grad)
    source = {"x": parameter}
    del parameter
    record = ParametersRecord(source)
    assert record["x"].ownership == "taken" and gradient() is None


def test_taking_and_giving_back_keeps_the_memory_where_it_is():
    source = {"f4": torch.zeros(8, 4), "bf16": torch.zeros(3, 5, dtype=torch.bfloat16).t(), "i8": torch.arange(7)}
    addresses = {key: tensor.data_ptr() for key, tensor in source.items()}
    strides = {key: tensor.stride() for key, tensor in source.items()}
    for _ in range(3):
        record = ParametersRecord(source)
        assert not source and [array.ownership for array in record.values()] == ["taken"] * 3
        source = record.to_torch_state_dict(keep_input=False)
        assert len(record) == 0 and {key: tensor.data_ptr() for key, tensor in source.items()} == addresses
        assert {key: tensor.stride() for key, tensor in source.items()} == strides
        for tensor in source.values():
            tensor += 1
        del tensor


def test_back_and_forth_between_numpy_and_torch():
    arrays = [np.zeros(100), np.ones((3, 4), order="F")]
    addresses = [array.ctypes.data for array in arrays]
    for _ in range(3):
        record = ParametersRecord(arrays)
        assert [array.ownership for array in record.values()] == ["taken"] * 2
        tensors = record.to_torch_state_dict(keep_input=False)
        assert [tensor.data_ptr() for tensor in tensors.values()] == addresses
        record = ParametersRecord(tensors)
        assert [array.ownership for array in record.values()] == ["taken"] * 2
        arrays = record.to_numpy_ndarrays(keep_input=False)
        assert [array.ctypes.data for array in arrays] == addresses and all(a.flags.writeable for a in arrays)


def test_a_live_model_is_copied_or_borrowed():
    live = model()
    record = ParametersRecord.from_torch_state_dict(live.state_dict())
    borrowed = ParametersRecord.from_torch_state_dict(live.state_dict(), copy=False)
    assert {array.ownership for array in record.values()} == {"snapshot"}
    assert {array.ownership for array in borrowed.values()} == {"borrowed"}
    with torch.no_grad():
        live[0].weight.fill_(7)
    assert (borrowed["0.weight"].numpy() == 7).all() and not (record["0.weight"].numpy() == 7).any()


def test_where_the_deleter_cannot_be_read(monkeypatch):
    measured = flatrecord.torch._MEASURED._replace(inside=None)
    monkeypatch.setattr(flatrecord.torch, "_MEASURED", measured)
    assert entered(TAKEN["owner"]) == "taken"
    assert entered(loaded) == entered(read_as_numpy) == "snapshot"
    for how in COPIED:
        assert entered(COPIED[how]) == "snapshot"


def test_where_torch_does_not_tell_who_holds_a_tensor(monkeypatch):
    monkeypatch.setattr(flatrecord.torch, "_use_count", lambda tensor: sys.maxsize)
    assert entered(TAKEN["owner"]) == "snapshot"


def test_the_deleter_can_be_read():
    assert flatrecord.torch._MEASURED.inside is not None
