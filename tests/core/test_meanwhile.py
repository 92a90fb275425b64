"""What the garbage collector and others' code see and do while a record is made, and of what it is made.

A callback of the collector runs in the middle, wherever an object is allocated: here it stands for other threads and for
finalizers, whose code may do anything to the input.
"""

import gc
import weakref
from collections import UserDict
from contextlib import contextmanager

import numpy as np
import pytest

from flatrecord import Array, ArrayRecord, ParametersRecord

ENTRIES = 400


def model() -> dict[str, np.ndarray]:
    return {f"layer{i}": np.full(4, i, "f4") for i in range(ENTRIES)}


@contextmanager
def once_in_the_middle(work):
    """Call `work` once, at the third collection within the block."""
    calls = []

    def callback(phase, info):
        if phase == "start":
            calls.append(phase)
            if len(calls) == 3:
                work()

    gc.collect()
    before = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(callback)
    assert len(calls) >= 3


@pytest.mark.parametrize("keep_input", [False, True])
def test_an_entry_that_is_deleted_meanwhile(keep_input):
    source = model()
    with once_in_the_middle(lambda: source.pop("layer7")):
        with pytest.raises(KeyError, match="layer7"):
            ParametersRecord(source, keep_input)
    assert list(source) == [key for key in model() if key != "layer7"]
    assert all(source[f"layer{i}"].tolist() == [i] * 4 for i in range(ENTRIES) if i != 7)


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
    with once_in_the_middle(lambda: source.update(layer9=other)):
        with pytest.raises(TypeError, match=f"key 'layer9'.*got {type(other).__name__}"):
            ParametersRecord(source, keep_input)
    assert list(source) == list(model()) and source["layer9"] is other
    assert all(source[f"layer{i}"].tolist() == [i] * 4 for i in range(ENTRIES) if i != 9)


def test_a_mapping_that_gives_something_else_the_second_time():
    class Fickle(UserDict):
        asked = 0

        def __getitem__(self, key):
            self.asked += 1
            return self.data[key] if self.asked == 1 else None

    source = Fickle(a=np.arange(5.0))
    with pytest.raises(TypeError, match="key 'a'.*got NoneType"):
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
    assert [int(array.numpy()[0]) for array in record.values()] == list(range(ENTRIES))


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
    source = model()
    ids = [id(array) for array in source.values()]
    record = ParametersRecord(source)
    record["layer3"].numpy()  # a view that is gone again
    assert record.count_bytes() == sum(128 + 16 + len(key) for key in record)
    out = record.to_numpy_ndarrays(keep_input=False)
    assert [id(array) for array in out] == ids
    assert all(array.flags.writeable and array.flags.owndata for array in out)
