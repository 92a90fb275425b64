"""Tensors become Arrays and records: each layout, dtype and kind of holder, tied ones, parameters, graphs, others' memory."""

import numpy as np
import torch
from _measuring import each, report, turn
from tensors.values import LAYOUTS, model
from torch import nn

from flatrecord import Array, ArrayRecord, ParametersRecord

DTYPES = [torch.bool, torch.bfloat16, torch.float8_e5m2, torch.complex64]
SHOWN = ["contiguous", "zero_dimensional", "empty", "small_slice", "strided", "reversed_axes", "expanded"]
TURNS = 1000  # as a tensor takes some 50 times as long as an ndarray
MODEL = model()
HELD = torch.arange(6.0)
NUMPYS = np.arange(6.0)


@each({name: LAYOUTS[name](torch.float32) for name in SHOWN}, turns=TURNS)
def held(tensor):
    Array(tensor)
    Array.from_torch_tensor(tensor, copy=True)
    ParametersRecord({"a": tensor}, keep_input=True)


@each({str(dtype): torch.zeros(3, dtype=dtype) for dtype in DTYPES}, turns=TURNS)
def of_dtype(tensor):
    Array(tensor), Array(tensor, copy=False)


def own():
    return {"a": torch.arange(6.0), "b": torch.zeros(()), "c": torch.zeros(0, 3)}


def views():
    base = torch.arange(50.0)
    return {"a": base[:-1], "b": base[1:], "c": base.view(5, 10).t(), "d": base}


def alone_with_their_base():
    return {"a": torch.arange(50.0)[1:], "b": torch.arange(6.0).view(2, 3).t()}


def strided():
    return {"a": torch.arange(24.0).view(4, 6)[::2, ::3], "b": HELD[::2], "c": torch.arange(3.0).expand(4, 3)}


def parameters():
    return {"a": nn.Parameter(torch.zeros(3)), "b": nn.Parameter(torch.zeros(3), requires_grad=False)}


def in_a_graph():
    weight = nn.Parameter(torch.zeros(3))
    return {"a": weight, "b": weight * 2, "c": (weight + 1).detach()}


def lazily_converted():
    return {"a": torch.zeros(3, dtype=torch.complex64).conj(), "b": torch.zeros(3, dtype=torch.complex64).conj().imag}


def tied():
    one = torch.zeros(3)
    return {"a": one, "b": one, "c": one.view(1, 3), "d": one.conj()}


def of_other_libraries():
    shared, exported = np.arange(6.0), torch.frombuffer(bytearray(8), dtype=torch.uint8)
    return {"a": torch.from_numpy(NUMPYS), "b": torch.from_numpy(shared), "c": shared, "d": exported}


def mixed():
    return {"a": torch.zeros(3), "b": np.arange(3.0), "c": Array(HELD)}


KINDS = [own, views, alone_with_their_base, strided, parameters, in_a_graph, lazily_converted, tied, of_other_libraries, mixed]


@each({made.__name__.replace("_", " "): made for made in KINDS}, turns=TURNS)
def a_record_of(made):
    ParametersRecord(made())
    ParametersRecord(made(), copy=True)
    ArrayRecord(made())


@each({made.__name__.replace("_", " "): made for made in KINDS if made not in (strided, lazily_converted, tied)}, turns=TURNS)
def a_record_that_borrows(made):
    ParametersRecord(made(), copy=False)


@turn(turns=TURNS)
def a_model():
    record = ParametersRecord.from_torch_state_dict(MODEL.state_dict())
    ArrayRecord.from_torch_state_dict(MODEL.state_dict(), copy=False)
    record.ties(), record.count_memory()


report()
