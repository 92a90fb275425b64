"""Tensors that cannot become Arrays, Arrays that cannot become tensors, and containers that fail while tensors leave them."""

import numpy as np
import torch
from _measuring import each, refused, report, turn
from containers import Stubborn
from torch import nn

from flatrecord import Array, ParametersRecord

TURNS = 1000  # as a tensor takes some 50 times as long as an ndarray


def resized():
    tensor = torch.zeros(6)
    tensor.untyped_storage().resize_(0)
    return tensor


REFUSED = {
    "sparse": (TypeError, torch.eye(3).to_sparse()),
    "nested": (TypeError, torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)),
    "meta": (TypeError, torch.zeros(3, device="meta")),
    "bits": (TypeError, torch.zeros(4, dtype=torch.uint8).view(torch.bits8)),
    "lazy": (TypeError, nn.parameter.UninitializedParameter()),
    "resized": (ValueError, resized()),
}


@each(REFUSED, turns=TURNS)
def a_tensor(case):
    error, tensor = case
    with refused(error):
        Array(tensor)
    with refused(error, "key 'b'"):
        ParametersRecord({"a": torch.zeros(3), "b": tensor})


@turn(turns=TURNS)
def without_a_copy():
    for tensor in (torch.zeros(4, 6)[::2, ::3], torch.zeros(3, dtype=torch.complex64).conj()):
        with refused(ValueError, "copy=False"):
            Array(tensor, copy=False)
        with refused(ValueError, "copy=False"):
            ParametersRecord({"a": torch.zeros(3), "b": tensor}, copy=False)


@turn(turns=TURNS)
def no_room():
    with refused(MemoryError, "key 'b'"):
        ParametersRecord({"a": torch.zeros(3), "b": torch.zeros(1).expand(1 << 50), "c": torch.zeros(3)})


@turn(turns=TURNS)
def a_container_that_fails():
    base = torch.arange(50.0)
    source = Stubborn(
        a=torch.zeros(3), layer1=torch.zeros(3), c=base[1:], d=base[:-1], e=torch.arange(50.0)[1:], f=torch.zeros(4, 6)[::2, ::3],
        g=torch.zeros(3, dtype=torch.complex64).conj(), h=nn.Parameter(torch.zeros(3)),
    )  # fmt: skip
    with refused(RuntimeError, "never"):
        ParametersRecord(source)
    assert len(source) == 8


TEXT = ParametersRecord({"a": np.arange(3.0), "b": np.array(["a"])})


@turn(turns=TURNS)
def arrays():
    for keep_input in (False, True):
        with refused(TypeError, "key 'b': torch"):
            TEXT.to_torch_state_dict(keep_input=keep_input)
    with refused(TypeError, "torch"):
        TEXT["b"].torch()
    view = TEXT["a"].torch()
    record = TEXT.copy()
    del record["b"]
    with refused(ValueError, "still in use"):
        record.to_torch_state_dict(keep_input=False, copy=False)
    assert view.sum() == 3


@turn(turns=TURNS)
def no_state_dict():
    with refused(TypeError, r"pass its state_dict\(\)"):
        ParametersRecord.from_torch_state_dict(MODULE)
    with refused(TypeError, "must be a torch.Tensor"):
        Array.from_torch_tensor([1])


MODULE = nn.Linear(2, 2)

report()
