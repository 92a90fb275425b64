"""Tensors in and out of a record: every dtype and layout, who owns the memory, what is refused."""

import copy
import io
import pickle
import subprocess
import sys
import textwrap
import weakref
from collections import OrderedDict

import flwr.app
import ml_dtypes
import numpy as np
import pytest
import torch
from tensors import DTYPES, LAYOUTS, OTHERS, are_tied, bits, filled
from torch import nn

import flatrecord.torch
from flatrecord import Array, ArrayRecord, ParametersRecord

DEVICES = ["cpu"] + ([str(torch.accelerator.current_accelerator())] if torch.accelerator.is_available() else [])


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request):
    return LAYOUTS[request.param]


def entered(tensor, **options) -> str:
    """How a tensor enters a record when the dict that is given holds the one reference to it."""
    return ParametersRecord({"x": tensor()}, **options)["x"].ownership


def model() -> nn.Module:
    """A small model with parameters, buffers and a number."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


# ------------------------------------------------------------------------------ dtypes and layouts


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_input", [False, True])
def test_a_round_trip_is_exact(dtype, layout, keep_input, device):
    tensor = layout(dtype).to(device)
    expected, shape = bits(tensor.cpu()), tensor.shape
    state_dict = OrderedDict(x=tensor)
    del tensor
    record = ParametersRecord.from_torch_state_dict(state_dict, keep_input)
    array = record["x"]
    assert len(state_dict) == keep_input
    assert array.shape == tuple(shape) and array.dtype == str(dtype).removeprefix("torch.") == str(array.numpy().dtype)
    assert array.numpy().tobytes() == expected
    assert np.lib.format.read_array(io.BytesIO(array.data)).tobytes() == expected
    for out in (record.to_torch_state_dict()["x"], array.torch(), array.torch(copy=True)):
        assert out.dtype is dtype and out.shape == shape and bits(out) == expected
    del array, out
    out = record.to_torch_state_dict(keep_input=False)["x"]
    assert out.dtype is dtype and out.shape == shape and bits(out) == expected and not out.is_inference()


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_flower_reads_what_numpy_has_no_name_for(name):
    tensor = filled((5, 3), getattr(torch, name))
    array = Array(tensor)
    assert array.dtype == name and array.numpy().dtype == getattr(ml_dtypes, name)
    theirs = flwr.app.Array(array.dtype, array.shape, array.stype, array.data).numpy()
    assert theirs.dtype.kind == "V" and theirs.tobytes() == bits(tensor)
    received = ParametersRecord({"x": Array(array.dtype, array.shape, array.stype, array.data)})
    assert bits(received.to_torch_state_dict(keep_input=False)["x"]) == bits(tensor)


def test_the_same_bytes_as_flowers_own():
    state_dict = model().state_dict()
    theirs = flwr.app.ArrayRecord(state_dict)
    ours = ArrayRecord.from_torch_state_dict(state_dict)
    assert ours.count_bytes() == theirs.count_bytes() and list(ours) == list(theirs)
    for key, array in theirs.items():
        mine = ours[key]
        assert (mine.dtype, mine.shape, mine.stype, mine.data) == (array.dtype, tuple(array.shape), array.stype, array.data)


@pytest.mark.parametrize("other", sorted(OTHERS, key=str), ids=str)
def test_every_other_dtype_is_refused_by_name(other):
    source = {"ok": torch.zeros(2), "odd": torch.empty(4, dtype=torch.uint8).view(other)}
    with pytest.raises(TypeError, match=rf"key 'odd': .*({other} has no counterpart in NumPy|quantized one \({other},)"):
        ParametersRecord(source)
    assert list(source) == ["ok", "odd"]


@pytest.mark.parametrize("kind", [">f4", "S3", "M8[ns]", "g", [("a", "f4")], ml_dtypes.int4])
@pytest.mark.parametrize("keep_input", [False, True])
def test_what_torch_has_no_dtype_for_stays_in_the_record(kind, keep_input):
    record = ParametersRecord({"ok": np.zeros(3), "odd": np.zeros(3, kind)})
    with pytest.raises(TypeError, match="key 'odd': torch .* has no dtype for NumPy's"):
        record.to_torch_state_dict(keep_input=keep_input)
    assert list(record) == ["ok", "odd"]
    with pytest.raises(TypeError, match="has no dtype"):
        record["odd"].torch()


# ------------------------------------------------------------------------------ who owns the memory


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
    assert entered(TAKEN[how]) == "taken"
    if "copied" not in how:
        assert entered(TAKEN[how], copy=True) == "snapshot"
        assert entered(TAKEN[how], copy=False) == "borrowed"
        assert entered(TAKEN[how], keep_input=True) == "snapshot"
        assert entered(TAKEN[how], keep_input=True, copy=False) == "borrowed"


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
    measured = flatrecord.torch._MEASURED._replace(deleter=None)
    monkeypatch.setattr(flatrecord.torch, "_MEASURED", measured)
    assert entered(TAKEN["owner"]) == "taken"
    assert entered(loaded) == entered(read_as_numpy) == "snapshot"
    for how in COPIED:
        assert entered(COPIED[how]) == "snapshot"


def test_where_torch_does_not_tell_who_holds_a_tensor(monkeypatch):
    monkeypatch.setattr(flatrecord.torch, "_use_count", lambda tensor: sys.maxsize)
    assert entered(TAKEN["owner"]) == "snapshot"


def test_the_deleter_can_be_read():
    assert flatrecord.torch._MEASURED.deleter is not None


# --------------------------------------------------------------------------------- what is refused


class Wrapper(torch.Tensor):
    """As DTensor and other wrappers: its values are elsewhere."""

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError("nothing may be computed")


def functorch_wrapped() -> torch.Tensor:
    found = []
    torch.vmap(lambda tensor: found.append(tensor) or tensor)(torch.zeros(3, 2))
    return found[0]


def fake() -> torch.Tensor:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        return torch.empty(3)


REFUSED = {
    "sparse COO": (lambda: torch.eye(3).to_sparse(), r"layout torch\.sparse_coo: pass tensor\.to_dense\(\)"),
    "sparse CSR": (lambda: torch.eye(3).to_sparse_csr(), r"layout torch\.sparse_csr"),
    "sparse BSR": (lambda: torch.eye(4).to_sparse_bsr((2, 2)), r"layout torch\.sparse_bsr"),
    "oneDNN": (lambda: torch.eye(3).to_mkldnn(), r"layout torch\._mkldnn"),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8),
        r"quantized one \(torch\.quint8, layout torch\.strided\): pass tensor\.dequantize\(\)",
    ),
    "meta": (lambda: torch.empty(3, device="meta"), r"on the meta device, which has no values \(layout torch\.strided\)"),
    "nested": (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), r"nested one \(layout torch\.strided\)"),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
        r"NestedTensor, which keeps its values elsewhere",
    ),
    "fake": (fake, "FakeTensor, which keeps its values elsewhere"),
    "wrapper": (lambda: torch.zeros(3).as_subclass(Wrapper), "Wrapper, which keeps its values elsewhere"),
    "lazy": (lambda: nn.LazyLinear(3).state_dict()["weight"], "uninitialized parameter: run the model once first"),
}


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:The PyTorch API of nested", "ignore:.*quantiz")
@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("copy", [None, True, False])
def test_what_is_not_dense_is_refused(how, copy):
    make, message = REFUSED[how]
    source = {"ok": torch.zeros(3), "odd": make()}
    identities = [id(tensor) for tensor in source.values()]
    with pytest.raises(TypeError, match="key 'odd': a tensor must be dense, got .*" + message):
        ParametersRecord.from_torch_state_dict(source, copy=copy)
    assert [id(tensor) for tensor in source.values()] == identities
    with pytest.raises(TypeError, match="a tensor must be dense, got .*" + message):
        Array(source["odd"], copy=copy)


def test_a_tensor_inside_vmap_is_refused():
    def work(tensor):
        with pytest.raises(TypeError, match="key 'x': a tensor must be dense, and this one has no memory of its own"):
            ParametersRecord({"x": tensor}, keep_input=True)
        return tensor

    torch.vmap(work)(torch.zeros(3, 2))


NOT_AS_THEY_ARE = {
    "strided": (COPIED["strided"], "is not contiguous"),
    "expanded": (COPIED["expanded"], "is not contiguous"),
    "conjugate": (TAKEN["conjugate, copied"], "is a conjugate view"),
    "negative": (TAKEN["negative, copied"], "is a negative view"),
}


@pytest.mark.parametrize("how", NOT_AS_THEY_ARE)
@pytest.mark.parametrize("keep_input", [False, True])
def test_copy_false_names_what_has_to_be_copied(how, keep_input):
    make, message = NOT_AS_THEY_ARE[how]
    source = {"ok": torch.zeros(3), "odd": make()}
    with pytest.raises(ValueError, match=f"key 'odd': copy=False, but the tensor {message} and has to be copied"):
        ParametersRecord(source, keep_input=keep_input, copy=False)
    assert list(source) == ["ok", "odd"]


def test_copy_false_on_a_device():
    for device in DEVICES[1:]:
        with pytest.raises(ValueError, match=f"is on device {device}"):
            Array(torch.zeros(3, device=device), copy=False)


def test_an_extra_state_is_refused_by_name():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"step": 3}

    state_dict = Extra(2, 2).state_dict()
    with pytest.raises(TypeError, match="key '_extra_state': a value must be .* a torch tensor, got dict"):
        ParametersRecord.from_torch_state_dict(state_dict)
    assert list(state_dict) == ["weight", "bias", "_extra_state"]


def test_wrong_arguments():
    for wrong in ([torch.zeros(3)], torch.zeros(3), None):
        with pytest.raises(TypeError, match="state_dict must be a mapping of str to torch.Tensor"):
            ParametersRecord.from_torch_state_dict(wrong)
    with pytest.raises(TypeError, match="tensor must be a torch.Tensor, got ndarray"):
        Array.from_torch_tensor(np.zeros(3))
    with pytest.raises(TypeError, match="a key must be str, got int"):
        ParametersRecord.from_torch_state_dict({1: torch.zeros(3)})
    record = ParametersRecord()
    with pytest.raises(TypeError, match=r"a value must be an Array, got torch.Tensor; Array\(value\) makes one"):
        record["x"] = torch.zeros(3)


# ------------------------------------------------------------------------------------ tied weights


def tied(names="ab", make=lambda: torch.ones(4, 4)):
    return dict.fromkeys(names, make())


@pytest.mark.parametrize("keep_input", [False, True])
@pytest.mark.parametrize("copy", [None, True, False])
def test_tied_weights_stay_tied(keep_input, copy):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.middle = nn.Linear(4, 4, bias=False)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

    state_dict = Tied().state_dict()
    expected = {key: bits(tensor) for key, tensor in state_dict.items()}
    record = ParametersRecord.from_torch_state_dict(state_dict, keep_input, copy=copy)
    assert record.ties() == [("embed.weight", "head.weight")]
    assert record.count_memory() == 40 * 4 + 16 * 4
    assert record.count_bytes() == flwr.app.ArrayRecord(Tied().state_dict()).count_bytes()
    for options in ({}, {"copy": True}, {"keep_input": False}):
        out = record.to_torch_state_dict(**options)
        assert are_tied(out["embed.weight"], out["head.weight"]) and not are_tied(out["embed.weight"], out["middle.weight"])
        assert {key: bits(tensor) for key, tensor in out.items()} == expected
        if options.get("keep_input", True):
            assert record.ties() == [("embed.weight", "head.weight")]
    again = Tied()
    again.load_state_dict(out, assign=True)
    assert are_tied(again.embed.weight, again.head.weight)


def test_tied_weights_are_taken_at_their_address():
    source = tied("abc")
    address = source["a"].data_ptr()
    source["t"] = source["a"].t()
    source["flat"] = source["b"].detach().view(16)
    record = ParametersRecord(source)
    assert {array.ownership for array in record.values()} == {"taken"}
    assert record.ties() == [("a", "b", "c", "t", "flat")] and record.count_memory() == 64
    out = record.to_torch_state_dict(keep_input=False)
    assert {tensor.data_ptr() for tensor in out.values()} == {address} and are_tied(*out.values())
    out["a"][0, 1] = 5
    assert out["t"][1, 0] == out["flat"][1] == 5


def test_parts_that_cover_their_storage_are_taken():
    def parts():
        q, k, v = torch.arange(300.0).chunk(3)
        return {"q": q, "k": k, "v": v}

    record = ParametersRecord(parts())
    assert {array.ownership for array in record.values()} == {"taken"} and record.ties() == []
    assert record.count_memory() == 1200
    out = record.to_torch_state_dict(keep_input=False)
    assert are_tied(*out.values()) and torch.equal(torch.cat(list(out.values())), torch.arange(300.0))
    record = ParametersRecord(out)
    assert {array.ownership for array in record.values()} == {"taken"}
    record = ParametersRecord(parts())
    del record["k"], record["v"]
    assert record["q"].numpy()[99] == 99 and record.count_memory() == 1200  # all of the storage is kept


def test_tensors_that_overlap_in_part():
    def overlapping():
        base = torch.arange(100.0)
        return {"left": base[:60], "right": base[40:], "odd": base[1::2], "odd again": base[1::2]}

    expected = {key: bits(tensor) for key, tensor in overlapping().items()}
    taken, snapshot = ParametersRecord(overlapping()), ParametersRecord(overlapping(), keep_input=True)
    for record in (taken, snapshot):
        assert record.ties() == [("left", "right"), ("odd", "odd again")]
        assert record.count_memory() == 400 + 200
    assert [array.ownership for array in taken.values()] == ["taken", "taken", "snapshot", "snapshot"]
    for record in (taken, snapshot):
        out = record.to_torch_state_dict(keep_input=False)
        assert {key: bits(tensor) for key, tensor in out.items()} == expected
        assert are_tied(out["left"], out["right"]) and are_tied(out["odd"], out["odd again"])
        out["left"][50] = -1
        assert out["right"][10] == -1 and out["odd"][24] == 49


@pytest.mark.parametrize("hold", ["tensor", "view", "one array", "another record"])
def test_tied_weights_of_which_somebody_holds_one(hold):
    source = tied()
    held = source["a"] if hold == "tensor" else source["b"][:1] if hold == "view" else None
    record = ParametersRecord(source)
    assert {array.ownership for array in record.values()} == {"taken" if held is None else "snapshot"}
    assert record.ties() == [("a", "b")] and record.count_memory() == 64
    if hold == "one array":
        held = record["b"]
    if hold == "another record":
        held = ParametersRecord({"b": record["b"]})
    expected = None if held is None or hold in ("tensor", "view") else record["a"].numpy()
    out = record.to_torch_state_dict(keep_input=False)
    assert are_tied(*out.values())
    out["a"].fill_(9)
    assert (out["b"] == 9).all()
    assert expected is None or (expected == 1).all()
    assert not isinstance(held, torch.Tensor) or (held == 1).all()


def test_half_of_a_tie_does_not_take_the_memory_from_the_other():
    record = ParametersRecord(tied())
    other = ParametersRecord({"b": record.pop("b")})
    out = record.to_torch_state_dict(keep_input=False)
    out["a"].fill_(9)
    assert (other["b"].numpy() == 1).all()
    assert (other.to_torch_state_dict(keep_input=False)["b"] == 1).all()


def test_ties_between_ndarrays():
    array = np.ones((4, 4))
    record = ParametersRecord({"a": array, "b": array.T, "c": array[1:3]}, keep_input=True)
    assert record.ties() == [("a", "b", "c")] and record.count_memory() == 128
    tensors = record.to_torch_state_dict(keep_input=False)
    assert are_tied(*tensors.values()) and tensors["b"].stride() == (1, 4)
    record = ParametersRecord(tensors)
    assert {a.ownership for a in record.values()} == {"taken"}
    ndarrays = record.to_numpy_ndarrays(keep_input=False)
    ndarrays[0][1, 0] = 7
    assert ndarrays[1][0, 1] == ndarrays[2][0, 0] == 7


def test_a_tied_record_copied_pickled_and_duplicated():
    record = ParametersRecord(tied())
    for other in (
        record.copy(),
        copy.deepcopy(record),
        ParametersRecord(record, keep_input=True),
        pickle.loads(pickle.dumps(record, 5)),
        pickle.loads(pickle.dumps(record, 2)),
        pickle.loads(pickle.dumps(record, 5, buffer_callback=(buffers := []).append), buffers=buffers),
    ):
        assert other == record and other.ties() == [("a", "b")]
        assert are_tied(*other.to_torch_state_dict().values())


# ----------------------------------------------------------------------------------- the way out


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


# ---------------------------------------------------------------------------- all or nothing


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


# ----------------------------------------------------------------------------- without torch


def in_fresh_process(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_is_not_imported_for_those_who_do_not_use_it():
    in_fresh_process("""
        import sys, numpy as np
        from flatrecord import Array, ParametersRecord
        record = ParametersRecord({"a": np.zeros(3)})
        try:
            ParametersRecord({"a": "text"})
        except TypeError:
            pass
        record.to_numpy_ndarrays(keep_input=False)
        assert "torch" not in sys.modules and "flatrecord.torch" not in sys.modules
    """)


def test_without_torch_the_error_says_what_to_install():
    printed = in_fresh_process("""
        import sys
        sys.modules["torch"] = None
        import numpy as np
        from flatrecord import Array, ParametersRecord
        record = ParametersRecord({"a": np.zeros(3)})
        for work in (record.to_torch_state_dict, record["a"].torch,
                     lambda: ParametersRecord.from_torch_state_dict({}), lambda: Array.from_torch_tensor(None)):
            try:
                work()
            except ModuleNotFoundError as error:
                print(error)
    """)
    assert printed.splitlines() == ["torch is not installed: pip install 'flatrecord[torch]'"] * 4
