"""What cannot become an Array: named, and left where it is."""

import numpy as np
import pytest
import torch
from tensors.values import DEVICES
from torch import nn

import flatrecord.torch
from flatrecord import Array, ParametersRecord


class Wrapper(torch.Tensor):
    """As DTensor and other wrappers: its values are elsewhere."""

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError("nothing may be computed")


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
    "strided": (lambda: torch.zeros(10, 10)[:, ::2], "is not contiguous"),
    "expanded": (lambda: torch.zeros(1).expand(5), "is not contiguous"),
    "conjugate": (lambda: torch.zeros(9, dtype=torch.complex64).conj(), "is a conjugate view"),
    "negative": (lambda: torch.zeros(9, dtype=torch.complex64).conj().imag, "is a negative view"),
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


@pytest.mark.parametrize(
    "wrong, hint",
    [
        (nn.Linear(2, 2), r"Linear: pass its state_dict\(\)"),
        (nn.Linear(2, 2).state_dict, "method: call it"),
        (nn.Linear(2, 2).parameters(), "generator: pass a dict or a list made of it"),
        (nn.Linear(2, 2).named_parameters(), "generator: pass a dict or a list made of it"),
        (7, "int$"),
    ],
)
def test_what_is_no_container_gets_a_hint(wrong, hint):
    for make in (ParametersRecord, ParametersRecord.from_torch_state_dict):
        with pytest.raises(TypeError, match=f"must be a mapping .*got .*{hint}"):
            make(wrong)


@pytest.mark.parametrize("size", [0, 8])
@pytest.mark.parametrize("entries", [5, 50_000_000])
def test_a_storage_that_was_freed(size, entries):
    tensor = torch.empty(entries)
    tensor.untyped_storage().resize_(size)
    source = {"ok": torch.zeros(3), "flat": tensor}
    message = f"key 'flat': the tensor's storage was resized to {size} bytes, and the tensor needs {4 * entries}"
    for options in ({}, {"copy": False}, {"keep_input": True}):
        with pytest.raises(ValueError, match=message):
            ParametersRecord(source, **options)
    assert list(source) == ["ok", "flat"]
    with pytest.raises(ValueError, match="storage was resized"):
        flatrecord.torch.expose(tensor, flatrecord.torch.memory_of(tensor))


def test_a_tensor_without_memory():
    source = {"x": torch._efficientzerotensor((5,))}
    with pytest.raises(TypeError, match="key 'x': a tensor must be dense, and this one has no memory of its own"):
        ParametersRecord(source)


def test_an_extra_state_is_refused_by_name():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"step": 3}

    state_dict = Extra(2, 2).state_dict()
    with pytest.raises(TypeError, match=r"key '_extra_state': a value must be .* a torch tensor, got dict"):
        ParametersRecord.from_torch_state_dict(state_dict)
    assert list(state_dict) == ["weight", "bias", "_extra_state"]


def test_wrong_arguments():
    for wrong in ([torch.zeros(3)], torch.zeros(3), None):
        with pytest.raises(TypeError, match=r"state_dict must be a mapping of str to torch.Tensor"):
            ParametersRecord.from_torch_state_dict(wrong)
    with pytest.raises(TypeError, match=r"tensor must be a torch.Tensor, got ndarray"):
        Array.from_torch_tensor(np.zeros(3))
    with pytest.raises(TypeError, match="a key must be str, got int"):
        ParametersRecord.from_torch_state_dict({1: torch.zeros(3)})
    record = ParametersRecord()
    with pytest.raises(TypeError, match=r"a value must be an Array, got torch.Tensor; Array\(value\) makes one"):
        record["x"] = torch.zeros(3)
