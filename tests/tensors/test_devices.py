"""Tensors on another device, as far as that can be tested without one: the device is feigned.

What moves a tensor is torch's; what is ours is when it is moved, how often, and what happens to the
tensor on the device. Where torch finds an accelerator, the tests of dtypes run on it as well.
"""

from collections import OrderedDict

import pytest
import torch
from tensors.values import are_tied, bits

import flatrecord.torch as adapter
from flatrecord import Array, ParametersRecord


@pytest.fixture
def moved(monkeypatch):
    """Let all tensors seem to be on a device; the list holds those that were moved, by address."""
    moved, expose = [], adapter.expose

    def move(tensor, memory):
        moved.append(tensor.data_ptr())
        return expose(tensor.clone(), memory)

    monkeypatch.setattr(adapter, "converts", lambda tensor: True)
    monkeypatch.setattr(adapter, "memory_of", lambda tensor: adapter.StorageMemory(tensor.untyped_storage(), 0, 0, True))
    monkeypatch.setattr(adapter, "expose", move)
    return moved


@pytest.mark.parametrize("keep_input", [False, True])
@pytest.mark.parametrize("live", [False, True])
def test_what_is_moved_is_new_memory_of_the_records_own(moved, keep_input, live):
    source = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(3, dtype=torch.bfloat16)}
    expected = {key: bits(tensor) for key, tensor in source.items()}
    model = list(source.values()) if live else None
    addresses = [tensor.data_ptr() for tensor in source.values()]
    record = ParametersRecord(source, keep_input)
    assert sorted(moved) == sorted(addresses) and len(source) == 2 * keep_input
    assert {array.ownership for array in record.values()} == {"taken"} and record.ties() == []
    out = record.to_torch_state_dict(keep_input=False)
    assert {key: bits(tensor) for key, tensor in out.items()} == expected
    assert not {tensor.data_ptr() for tensor in out.values()} & set(addresses)
    assert model is None or [bits(tensor) for tensor in model] == list(expected.values())


def test_tied_weights_are_moved_once(moved):
    tensor = torch.ones(4, 4)
    source = {"a": tensor, "b": tensor.detach(), "t": tensor.t()}
    del tensor
    record = ParametersRecord(source)
    assert len(moved) == 2 and record.ties() == [("a", "b")]  # "t" has other strides
    assert are_tied(*list(record.to_torch_state_dict().values())[:2])


@pytest.mark.parametrize("hold", [False, True])
def test_after_a_failure_the_tensors_on_the_device_are_back(moved, hold):
    class Stubborn(OrderedDict):
        def __delitem__(self, key):
            if key == "first":
                raise RuntimeError("never")
            super().__delitem__(key)

    source = Stubborn(first=torch.zeros(1), a=torch.ones(3), b=torch.ones(4))
    source["tie"] = source["b"].detach()
    held = source["a"] if hold else None
    identities = [id(tensor) for tensor in source.values()]
    with pytest.raises(RuntimeError, match="never"):
        ParametersRecord(source)
    assert [id(tensor) for tensor in source.values()] == identities and held is (source["a"] if hold else None)


def test_one_array(moved):
    array = Array(torch.arange(3.0))
    assert array.ownership == "taken" and array.numpy().tolist() == [0, 1, 2] and len(moved) == 1
