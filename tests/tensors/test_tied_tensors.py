"""Tensors that share memory, in and out of a record."""

import copy
import pickle

import flwr.app
import numpy as np
import pytest
import torch
from tensors.values import are_tied, bits
from torch import nn

from flatrecord import ParametersRecord


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


def mapped(tmp_path) -> dict[str, torch.Tensor]:
    torch.save(tied(), tmp_path / "model.pt")
    return torch.load(tmp_path / "model.pt", mmap=True)


def shared(tmp_path) -> dict[str, torch.Tensor]:
    return tied(make=lambda: torch.ones(4, 4).share_memory_())


def foreign(tmp_path) -> dict[str, torch.Tensor]:
    tensor = torch.from_numpy(np.ones((4, 4)))
    return {"a": tensor.detach(), "b": tensor.detach()}


@pytest.mark.parametrize("make", [mapped, shared, foreign])
def test_tied_weights_whose_memory_is_not_torchs_own(make, tmp_path):
    record = ParametersRecord(make(tmp_path))
    assert {array.ownership for array in record.values()} == {"snapshot"} and record.ties() == [("a", "b")]
    assert are_tied(*record.to_torch_state_dict(keep_input=False).values())


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
