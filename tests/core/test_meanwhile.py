"""What the garbage collector and others' code see and do while a record is made, and of what it is made.

One of the arrays runs code when it is asked for its shape: here that stands for other threads and for finalizers, whose code may do
anything to the input.
"""

import gc
import weakref
from collections import UserDict
from contextlib import contextmanager

import numpy as np
import pytest

from flatrecord import Array, ArrayRecord, ParametersRecord

ENTRIES, WATCHED = 400, 200
OTHERS = [i for i in range(ENTRIES) if i != WATCHED]


class Watched(np.ndarray):
    """An ndarray that calls `work` the first time that it is asked for its shape."""

    work = None

    @property
    def shape(self):
        work, Watched.work = Watched.work, None
        if work is not None:
            work()
        return super().shape


def model() -> dict[str, np.ndarray]:
    arrays = {f"layer{i}": np.full(4, i, "f4") for i in range(ENTRIES)}
    # Of a dtype with fields, whose header is made each time, and not found among those that were made before.
    arrays[f"layer{WATCHED}"] = np.zeros(3, [("x", "f4")]).view(Watched)
    return arrays


@contextmanager
def once_in_the_middle(work):
    """Call `work` once, while the entries are being looked at."""
    Watched.work = work
    yield
    assert Watched.work is None


@pytest.mark.parametrize("keep_input", [False, True])
def test_an_entry_that_is_deleted_meanwhile(keep_input):
    source = model()
    with once_in_the_middle(lambda: source.pop("layer7")), pytest.raises(KeyError, match="layer7"):
        ParametersRecord(source, keep_input)
    assert list(source) == [key for key in model() if key != "layer7"]
    assert all(source[f"layer{i}"].tolist() == [i] * 4 for i in OTHERS if i != 7)


@pytest.mark.parametrize("keep_input", [False, True])
def test_an_entry_that_is_added_meanwhile_stays_where_it_is(keep_input):
    source = model()
    with once_in_the_middle(lambda: source.update(late=np.ones(3))):
        record = ParametersRecord(source, keep_input)
    assert list(record) == list(model())
    assert list(source) == [*(model() if keep_input else ()), "late"]


@pytest.mark.parametrize("keep_input", [False, True])
def test_an_entry_that_is_replaced_meanwhile(keep_input):
    source = model()
    with once_in_the_middle(lambda: source.update(layer9=np.full((2, 5), 99, "i2"))):
        record = ParametersRecord(source, keep_input)
    found = record["layer9"]
    assert found.dtype == "int16" and found.shape == (2, 5) and found.numpy().tolist() == [[99] * 5] * 2
    assert record["layer8"].numpy().tolist() == [8] * 4


@pytest.mark.parametrize("keep_input", [False, True])
@pytest.mark.parametrize("other", [None, "text", 7])
def test_a_value_that_is_none_any_more(keep_input, other):
    source = model()
    refused = pytest.raises(TypeError, match=f"key 'layer9'.*got {type(other).__name__}")
    with once_in_the_middle(lambda: source.update(layer9=other)), refused:
        ParametersRecord(source, keep_input)
    assert list(source) == list(model()) and source["layer9"] is other
    assert all(source[f"layer{i}"].tolist() == [i] * 4 for i in OTHERS if i != 9)


def test_a_mapping_that_gives_something_else_the_second_time():
    class Fickle(UserDict):
        asked = 0

        def __getitem__(self, key):
            self.asked += 1
            return self.data[key] if self.asked == 1 else None

    source = Fickle(a=np.arange(5.0))
    with pytest.raises(TypeError, match=r"key 'a'.*got NoneType"):
        ParametersRecord(source)
    assert source.data == {"a": None}


def test_an_array_that_is_resized_meanwhile_is_what_it_is_then():
    source = model()
    array = source["layer11"]

    def shrink():
        array.resize((2, 1), refcheck=False)

    with once_in_the_middle(shrink):
        record = ParametersRecord(source)
    assert record["layer11"].shape == (2, 1) and record["layer11"].numpy().tolist() == [[11], [11]]


def test_another_holder_meanwhile():
    source, held = model(), []
    with once_in_the_middle(lambda: held.extend(source.values())):
        record = ParametersRecord(source)
    for array in held:
        array[:] = -1
    assert len(held) == ENTRIES
    assert [int(record[f"layer{i}"].numpy()[0]) for i in OTHERS] == OTHERS


def test_the_collector_passes_by_what_leads_nowhere():
    record = ParametersRecord({"taken": np.ones(4), "strided": np.ones(8)[::2], "held": (held := np.ones(4))})
    assert [array.ownership for array in record.values()] == ["taken", "snapshot", "snapshot"]
    assert not any(gc.is_tracked(array) for array in record.values())
    assert not gc.is_tracked(Array(held))
    views = [array.numpy() for array in record.values()]
    assert not any(gc.is_tracked(array) or gc.is_tracked(array.numpy().base) for array in record.values())
    assert gc.is_tracked(Array(held, copy=False)) and len(views) == 3


class Labelled(np.ndarray):
    """An ndarray with attributes."""


@pytest.mark.parametrize("cls", [ParametersRecord, ArrayRecord])
def test_a_cycle_through_borrowed_memory_is_collected(cls):
    array = np.ones(100).view(Labelled)
    record = cls({"x": array}, keep_input=True, copy=False)
    array.record = record
    gone = weakref.ref(array)
    assert gc.is_tracked(record["x"])
    del array, record
    gc.collect()
    assert gone() is None


def test_a_subclass_with_attributes_is_collected():
    class Tagged(Array):
        pass

    array = Tagged(np.ones(4))
    array.own = array
    gone = weakref.ref(array)
    assert gc.is_tracked(array)
    del array
    gc.collect()
    assert gone() is None


def test_an_array_goes_in_and_out_as_the_same_object():
    source = {f"layer{i}": np.full(4, i, "f4") for i in range(50)}
    ids = [id(array) for array in source.values()]
    record = ParametersRecord(source)
    record["layer3"].numpy()  # a view that is gone again
    assert record.count_bytes() == sum(128 + 16 + len(key) for key in record)
    out = record.to_numpy_ndarrays(keep_input=False)
    assert [id(array) for array in out] == ids
    assert all(array.flags.writeable and array.flags.owndata for array in out)
