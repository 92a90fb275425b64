"""Tensors on a record's memory and from it, tied ones, those that outlive the record, and what torch does with them then."""

import numpy as np
import torch
from _measuring import each, refused, report, turn
from tensors.values import model

from flatrecord import Array, ParametersRecord

HELD = torch.arange(6.0)
BASE = np.arange(50.0)
DATA = Array(np.arange(6.0)).data
MODEL = model()
TURNS = 1000  # as a tensor takes some 50 times as long as an ndarray


def numpys():
    return ParametersRecord({"a": np.arange(6.0), "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "c": np.zeros((0, 3), "f4")})


def tensors():
    return ParametersRecord({"a": torch.arange(6.0), "b": torch.zeros(()), "c": torch.zeros(3, dtype=torch.bfloat16)})


def snapshots():
    return ParametersRecord({"a": HELD, "b": BASE[::2]}, keep_input=True)


def borrowed():
    return ParametersRecord({"a": HELD, "b": BASE}, keep_input=True, copy=False)


def received():
    return ParametersRecord({"a": Array("float64", [6], "numpy.ndarray", DATA)})


def tied():
    base = torch.arange(50.0)
    return ParametersRecord({"a": base, "b": base, "c": base[1:]})


def views_on_one_base():
    base = np.arange(50.0)
    return ParametersRecord({"a": base[:-1], "b": base[1:]})


RECORDS = {made.__name__.replace("_", " "): made for made in (numpys, tensors, snapshots, borrowed, received, tied, views_on_one_base)}


@each(RECORDS, turns=TURNS)
def kept(made):
    record = made()
    for copy in (None, True):
        out = record.to_torch_state_dict(copy=copy)
    record["a"].torch(), record["a"].torch(copy=True)
    record.to_numpy_ndarrays()
    del record
    assert out["a"].numel()


@each(RECORDS, turns=TURNS)
def let_go(made):
    made().to_torch_state_dict(keep_input=False, copy=True)
    for value in made().to_torch_state_dict(keep_input=False).values():
        value.add_(1)


@each({name: RECORDS[name] for name in ("tensors", "tied", "numpys")}, turns=TURNS)
def round_and_round(made):
    out = made().to_torch_state_dict(keep_input=False)
    out = ParametersRecord(out).to_torch_state_dict(keep_input=False)
    out = ParametersRecord(out).to_numpy_ndarrays(keep_input=False)
    ParametersRecord(out).to_torch_state_dict(keep_input=False)


@turn(turns=TURNS)
def shown_again_by_torch():
    tensor = numpys().to_torch_state_dict(keep_input=False)["a"]
    shown = tensor.numpy(), torch.from_dlpack(tensor), np.from_dlpack(tensor), tensor.view(2, 3)
    del tensor
    assert shown[0].sum() == 15
    storage = numpys()["a"].torch().untyped_storage()
    assert storage.nbytes() == 48


@turn(turns=TURNS)
def torch_takes_it_by_dlpack():
    tensor = torch.from_dlpack(numpys()["a"].numpy(copy=True))
    assert tensor.sum() == 15


@turn(turns=TURNS)
def a_model():
    record = ParametersRecord.from_torch_state_dict(MODEL.state_dict())
    MODEL.load_state_dict(record.to_torch_state_dict())
    record.to_torch_state_dict(keep_input=False)


@turn(turns=TURNS)
def written_to_against_all_advice():
    with refused(RuntimeError, "inference"):
        numpys()["a"].torch().add_(1)


report()
