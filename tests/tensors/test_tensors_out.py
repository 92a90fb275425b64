"""Tensors on the memory of a record, and what happens when something fails on the way."""

import copy
import pickle
import subprocess
import sys
import textwrap
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch
from tensors.values import are_tied, model
from torch import nn

import flatrecord.torch
from flatrecord import Array, ArrayRecord, ParametersRecord


def test_a_received_model_is_adopted():
    sent = model()
    record = ArrayRecord({key: Array(array.dtype, array.shape, array.stype, array.data)
                          for key, array in ArrayRecord.from_torch_state_dict(sent.state_dict()).items()})  # fmt: skip
    with torch.device("meta"):
        received = model()
    state_dict = record.to_torch_state_dict(keep_input=False)
    addresses = {key: tensor.data_ptr() for key, tensor in state_dict.items()}
    assert received.load_state_dict(state_dict, strict=True, assign=True)
    del state_dict
    assert {key: tensor.data_ptr() for key, tensor in received.state_dict().items()} == addresses
    assert all(torch.equal(a, b) for a, b in zip(sent.state_dict().values(), received.state_dict().values(), strict=True))
    assert all(parameter.requires_grad for parameter in received.parameters())
    received(torch.ones(5, 3)).sum().backward()
    torch.optim.SGD(received.parameters(), 0.1).step()
    out = ParametersRecord.from_torch_state_dict(received.state_dict(), copy=False)
    assert [array.numpy().ctypes.data for array in out.values()] == list(addresses.values())


def test_what_the_record_keeps_cannot_be_written_to_by_accident():
    data = Array(np.zeros(3, "f4")).data
    record = ParametersRecord({"taken": torch.zeros(3), "received": Array("float32", (3,), "numpy.ndarray", data)})
    for tensor in [*record.to_torch_state_dict().values(), record["taken"].torch()]:
        with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
            tensor += 0
        with pytest.raises(RuntimeError, match="requires_grad=True on inference tensor"):
            nn.Parameter(tensor)
        target = torch.ones(3)
        target.copy_(tensor)
        assert not target.any() and (tensor.clone().add_(1) == 1).all()
    layer = nn.Linear(3, 1, bias=False)
    layer.load_state_dict({"weight": record["taken"].torch().view(1, 3)})
    assert not layer.weight.any()
    with pytest.raises(RuntimeError, match="inference tensor"):
        layer.load_state_dict({"weight": record["taken"].torch().view(1, 3)}, assign=True)


def test_torch_cannot_move_the_memory_that_a_record_shows():
    record = ParametersRecord({"taken": torch.arange(1000.0), "snapshot": np.arange(1000.0).repeat(2)[::2]})
    for array in record.values():
        shown = array.torch()
        with pytest.raises(RuntimeError, match="not resizable"):
            shown.untyped_storage().resize_(0)
        shown.share_memory_()
        assert np.array_equal(array.numpy(), np.arange(1000)) and shown.sum() == array.numpy().sum()


@pytest.mark.parametrize("way", [lambda a, r: a.torch(), lambda a, r: r.to_torch_state_dict(keep_input=False, copy=False)["x"]])
def test_a_bytearray_stays_locked_as_long_as_a_tensor_shows_it(way):
    data = bytearray(800)
    record = ParametersRecord({"x": np.frombuffer(data)}, keep_input=True, copy=False)
    tensor = way(record["x"], record)
    del record
    with pytest.raises(BufferError):
        data.clear()
    assert not tensor.any()
    del tensor
    data.clear()


@pytest.mark.parametrize("options", [{"keep_input": False}, {"copy": True}])
def test_what_is_given_up_can_be_trained_even_inside_inference_mode(options):
    record = ParametersRecord({"x": torch.zeros(3), "y": np.zeros(4, "f4")})
    with torch.inference_mode():
        out = record.to_torch_state_dict(**options)
    for tensor in out.values():
        nn.Parameter(tensor).sum().backward()
        tensor += 1
    assert len(record) == (2 if "copy" in options else 0)
    assert not any(array.numpy().any() for array in record.values())


def test_memory_in_use_elsewhere_is_copied_on_the_way_out():
    record = ParametersRecord({key: torch.zeros(3) for key in "abcd"})
    view, tensor, array = record["a"].numpy(), record["b"].torch(), record["c"]
    with pytest.raises(ValueError, match="key 'c': copy=False, but the memory is still in use"):
        record.to_torch_state_dict(keep_input=False, copy=False)
    assert list(record) == list("abcd")
    address = record["d"].numpy().ctypes.data
    out = record.to_torch_state_dict(keep_input=False)
    for given in out.values():
        given.fill_(9)
    assert not view.any() and not tensor.any() and not array.numpy().any()
    assert out["d"].data_ptr() == address


def test_a_borrowed_tensor_goes_back_shared_or_as_a_copy():
    mine = torch.zeros(3)
    (out,) = ParametersRecord({"x": mine}, copy=False).to_torch_state_dict(keep_input=False, copy=False).values()
    assert are_tied(out, mine)
    (out,) = ParametersRecord({"x": mine}, copy=False).to_torch_state_dict(keep_input=False).values()
    assert not are_tied(out, mine)


def test_a_tensor_outlives_the_record():
    record = ParametersRecord({"a": torch.arange(1000.0), "b": np.arange(1000.0)})
    tensors = [*record.to_torch_state_dict().values(), record["a"].torch()]
    del record
    assert all((tensor.numpy() == np.arange(1000)).all() for tensor in tensors)


def test_what_was_lent_to_torch_is_forgotten_when_torch_is_done():
    flatrecord.torch._loans.clear()
    record = ParametersRecord({"a": np.zeros(3), "b": np.ones(4)})
    references = []
    for _ in range(3):
        out = record.to_torch_state_dict()
        loans = list(flatrecord.torch._loans.values())
        assert len(loans) == 2
        references += map(weakref.ref, loans)
        del out, loans
        assert not flatrecord.torch._loans and not any(reference() for reference in references)


def test_metadata_stays_with_the_record():
    state_dict = model().state_dict()
    metadata = copy.deepcopy(state_dict._metadata)
    record = ParametersRecord(state_dict)
    state_dict._metadata.clear()
    for other in (record, record.copy(), pickle.loads(pickle.dumps(record)), copy.deepcopy(record), ParametersRecord(record, True)):
        out = other.to_torch_state_dict()
        assert out._metadata == metadata and list(out) == list(model().state_dict())
        out._metadata.clear()
    model().load_state_dict(record.to_torch_state_dict(keep_input=False), strict=True)
    assert not hasattr(record.to_torch_state_dict(), "_metadata")
    assert not hasattr(ParametersRecord({"x": torch.zeros(3)}).to_torch_state_dict(), "_metadata")


def test_mixed_values_keep_their_order():
    source = OrderedDict(z=torch.zeros(3), a=np.ones(2), m=Array(torch.ones(4)), b=nn.Parameter(torch.zeros(1)))
    record = ParametersRecord(source)
    assert list(record) == ["z", "a", "m", "b"] and not source
    assert [array.ownership for array in record.values()] == ["taken", "taken", "snapshot", "taken"]
    out = record.to_torch_state_dict(keep_input=False)
    assert [tensor.dtype for tensor in out.values()] == [torch.float32, torch.float64, torch.float32, torch.float32]
    assert ParametersRecord([torch.zeros(3), np.zeros(2)]).to_torch_state_dict().keys() == {"0", "1"}


def test_one_array():
    tensor = torch.arange(6.0).reshape(2, 3)
    for array in (Array(tensor), Array.from_torch_tensor(tensor)):
        assert array.ownership == "snapshot" and array == Array(tensor.numpy())
    borrowed = Array.from_torch_tensor(tensor, copy=False)
    tensor[0, 0] = 7
    assert borrowed.numpy()[0, 0] == 7 and borrowed.ownership == "borrowed"

    class Mine(Array):
        pass

    assert type(Mine.from_torch_tensor(tensor)) is Mine


def test_a_subclass_of_tensor_that_watches_every_function():
    class Watching(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            raise AssertionError(f"{function} was called")

    record = ParametersRecord({"x": torch.arange(3.0).as_subclass(Watching)})
    assert record["x"].numpy().tolist() == [0, 1, 2]


class Stubborn(OrderedDict):
    """Refuses to let go of its first key."""

    def __delitem__(self, key):
        if key == "first":
            raise RuntimeError("never")
        super().__delitem__(key)


def test_after_a_failure_the_same_tensors_are_there():
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    source = Stubborn(first=torch.zeros(2), taken=torch.zeros(3), parameter=parameter, ndarray=np.zeros(3))
    source["held"] = held = torch.zeros(4)
    source["tie"] = source["taken"]
    del parameter
    identities = {key: id(value) for key, value in source.items()}
    with pytest.raises(RuntimeError, match="never"):
        ParametersRecord(source)
    assert {key: id(value) for key, value in source.items()} == identities
    assert list(source) == ["first", "taken", "parameter", "ndarray", "held", "tie"]
    assert source["parameter"].grad is not None and held is source["held"]


def test_a_copy_that_goes_back_is_a_tensor_and_said_to_be_a_copy():
    source = Stubborn(first=torch.zeros(2), strided=torch.arange(6.0)[::2], conjugate=torch.ones(2, dtype=torch.complex64).conj())
    with pytest.raises(RuntimeError) as caught:
        ParametersRecord(source)
    assert source["strided"].tolist() == [0, 2, 4] and source["conjugate"].tolist() == [1, 1]
    assert list(source) == ["first", "strided", "conjugate"]
    assert any("as equal copies" in note and "strided" in note for note in caught.value.__notes__)


@pytest.mark.memory
def test_out_of_memory_among_tied_weights():
    script = """
        import resource, torch
        from flatrecord import ParametersRecord
        huge = torch.zeros(1).expand(1 << 32)  # 16 GiB, once it is copied
        source = {"a": torch.zeros(3), "b": huge, "c": huge, "d": torch.arange(8.0)[::2]}
        del huge
        identities = [id(value) for value in source.values()]
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        try:
            ParametersRecord(source)
        except MemoryError as error:
            print(error)
        assert [id(value) for value in source.values()][:3] == identities[:3]
        assert source["d"].tolist() == [0, 2, 4, 6] and list(source) == list("abcd")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"key 'b': cannot allocate {16 << 30} bytes for an array\n"


@pytest.mark.parametrize("keep_input", [True, False])
def test_what_another_thread_puts_in_while_the_dtypes_are_looked_at_stays(keep_input, monkeypatch):
    record = ParametersRecord({"a": np.ones(3), "b": np.zeros(2), "c": np.ones(1), "d": np.zeros(1)})
    check = flatrecord.torch.Form.check

    def meanwhile(form, descr):
        if "new" not in record:  # for want of a thread that comes at this very moment
            record["new"] = Array(np.full(2, 5.0))
            record["b"] = record["d"] = Array(np.full(2, 6.0))
            del record["c"]
        check(form, descr)

    monkeypatch.setattr(flatrecord.torch.Form, "check", meanwhile)
    state_dict = record.to_torch_state_dict(keep_input=keep_input)
    if keep_input:  # as it was at the beginning
        assert list(state_dict) == ["a", "b", "c", "d"] and list(record) == ["a", "b", "d", "new"]
        assert state_dict["b"].tolist() == [0, 0]
    else:
        assert list(state_dict) == ["a"] and list(record) == ["b", "d", "new"]
        assert record["b"].numpy().tolist() == [6, 6] and record["new"].numpy().tolist() == [5, 5]
