"""A record's way out: each `keep_input` and `copy`, whoever else holds the memory, and what fails on it."""

import numpy as np
from _measuring import each, refused, report, turn

from flatrecord import Array, ParametersRecord

DATA = Array(np.arange(6.0)).data
HELD = np.arange(6.0)
HUGE = np.lib.stride_tricks.as_strided(np.zeros(1, "u1"), (1 << 47,), (1,))  # more than there are addresses; nothing reads it


def taken():
    return ParametersRecord({"a": np.arange(3.0), "b": np.arange(6.0).reshape(2, 3), "c": np.asfortranarray(np.ones((2, 3), "f4"))})


def snapshots():
    return ParametersRecord({"a": HELD, "b": HELD[::2]}, keep_input=True)


def borrowed():
    return ParametersRecord({"a": HELD}, keep_input=True, copy=False)


def received():
    return ParametersRecord({"a": Array("float64", [6], "numpy.ndarray", DATA), "b": Array("", (), "numpy.ndarray", bytearray(DATA))})


def structured():
    return ParametersRecord({"a": np.zeros(3, [("x", "f4")])})


RECORDS = {made.__name__: made for made in (taken, snapshots, borrowed, received, structured)}


@each(RECORDS)
def kept(made):
    record = made()
    for copy in (None, False, True):
        record.to_numpy_ndarrays(copy=copy)
    assert len(record)


@each(RECORDS)
def let_go(made):
    for copy in (None, True):
        record = made()
        record.to_numpy_ndarrays(keep_input=False, copy=copy)
        assert not len(record)


@each(RECORDS)
def while_others_hold_it(made):
    record = made()
    views, arrays, other = record.to_numpy_ndarrays(), list(record.values()), record.copy()
    out = record.to_numpy_ndarrays(keep_input=False)
    assert len(views) == len(arrays) == len(out) == len(other)
    del views, arrays
    other.to_numpy_ndarrays(keep_input=False)


@turn
def without_a_copy():
    taken().to_numpy_ndarrays(keep_input=False, copy=False)
    borrowed().to_numpy_ndarrays(keep_input=False, copy=False)


@turn
def refused_and_whole_again():
    record = taken()
    view = record["b"].numpy()
    for _ in range(2):
        with refused(ValueError, "key 'b': copy=False, but the memory is still in use"):
            record.to_numpy_ndarrays(keep_input=False, copy=False)
    assert view[0, 0] == 0 and list(record) == ["a", "b", "c"]
    with refused(ValueError, "immutable"):
        received().to_numpy_ndarrays(keep_input=False, copy=False)
    with refused(TypeError, "keep_input"):
        record.to_numpy_ndarrays(keep_input=1)


@turn
def an_entry_that_cannot_be_read():
    record = taken()
    record["odd"] = Array("mine", (1,), "mine", b"1234")
    for keep_input in (False, True):
        with refused(TypeError, "key 'odd'"):
            record.to_numpy_ndarrays(keep_input=keep_input)
    record["odd"] = Array("float32", (1,), "numpy.ndarray", b"1234")
    for keep_input in (False, True):
        with refused(ValueError, "key 'odd'"):
            record.to_numpy_ndarrays(keep_input=keep_input)


@turn
def no_room_for_a_copy():
    record = ParametersRecord({"a": np.arange(3.0), "huge": HUGE}, keep_input=True, copy=False)
    with refused(MemoryError, "key 'huge'"):
        record.to_numpy_ndarrays(keep_input=False)
    with refused(MemoryError, "key 'huge'"):
        record.to_numpy_ndarrays(copy=True)
    assert len(record) == 2


report()
