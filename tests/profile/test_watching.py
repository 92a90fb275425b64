"""What counts as a model, and what is written down of a program."""

from collections import OrderedDict

import flwr.app
import numpy as np
import pytest
import torch

import flatrecord
from flatrecord.profile import phase, phases
from flatrecord.profile.models import size_of
from flatrecord.profile.notes import MOST, Writer, read
from flatrecord.profile.places import Place

KIB = 1 << 10


def arrays() -> list[np.ndarray]:
    return [np.ones(256, np.float32) for _ in range(3)]


def tied() -> dict[str, torch.Tensor]:
    weight = torch.ones(256)
    return {"a": weight, "b": weight, "c": torch.ones(256)}


@pytest.mark.parametrize(
    "value, expected",
    [
        (arrays(), (3 * KIB, 3)),
        (tuple(arrays()), (3 * KIB, 3)),
        (OrderedDict(enumerate(arrays())), (3 * KIB, 3)),
        (flatrecord.ParametersRecord(arrays()), (3 * KIB, 3)),
        ([flatrecord.Array(array) for array in arrays()], (3 * KIB + 3 * 128, 3)),
        (flwr.app.ArrayRecord(arrays()), (3 * KIB + 3 * 128, 3)),
        (tied(), (2 * KIB, 2)),
        (torch.nn.Linear(16, 16, bias=False).state_dict(), (KIB, 1)),
        ({"epoch": 3, "model": {"x": np.ones(KIB, np.uint8)}, "optimizer": {"state": {0: {"y": np.ones(9, np.uint8)}}}}, (KIB, 1)),
        ({"x": torch.eye(4).to_sparse(), "y": np.ones(8, np.uint8)}, (8, 1)),
        ({"x": torch.empty(4, device="meta"), "y": torch.empty(4, device="meta")}, (32, 2)),
        ({"x": 1, "y": "text"}, (0, 0)),
        (np.ones(9), (0, 0)),
        ("text", (0, 0)),
        (None, (0, 0)),
        ({}, (0, 0)),
    ],
)
def test_the_size_of_a_model(value, expected):
    assert size_of(value) == expected


@pytest.fixture
def writer(tmp_path):
    writer = Writer(str(tmp_path / "notes"))
    yield writer
    writer.close()


def test_notes_are_read_as_they_were_written(tmp_path, writer):
    place = Place("x.py", 3, "f")
    writer.say(started={"time": 5.0, "resident": 7})
    outer = writer.begin("outer", place)
    inner = writer.begin("inner", None)
    writer.end(inner, "inner", None)
    writer.end(outer, "outer", place, 100, 2)
    writer.begin("never ends", place)
    with open(tmp_path / "notes", "a") as file:
        file.write('{"call": 9, "na')  # killed in the middle
    notes = read(tmp_path / "notes")
    assert notes.started == {"time": 5.0, "resident": 7} and notes.ended == {}
    assert [(call.name, call.place, call.nbytes) for call in notes.calls] == [
        ("outer", place, 100),
        ("inner", None, 0),
        ("never ends", place, 0),
    ]
    assert notes.model is notes.calls[0] and notes.calls[2].ended == float("inf")


def test_notes_do_not_grow_without_end(tmp_path, writer):
    place = Place("x.py", 3, "f")
    for i in range(2 * MOST):
        writer.end(writer.begin("call", place), "call", place, 7 if i == MOST + 5 else 3, 1)
    notes = read(tmp_path / "notes")
    assert len(notes.calls) == MOST + 1 and notes.model.nbytes == 7


def test_a_phase_does_nothing_where_nothing_is_profiled():
    with phase("train"):
        pass


def test_a_phase_that_fails_ends(tmp_path, writer, monkeypatch):
    from flatrecord.profile.watching import Watch

    monkeypatch.setattr(phases, "_recorder", Watch(writer).phase)
    with pytest.raises(ValueError, match="why"), phase("train"):
        raise ValueError("why")
    (call,) = read(tmp_path / "notes").calls
    assert call.name == "train" and call.began <= call.ended < float("inf")
