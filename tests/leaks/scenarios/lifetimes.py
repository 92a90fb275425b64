"""Views that outlive records, and records that outlive what they were made of."""

import mmap
from itertools import islice

import numpy as np
from _measuring import report, turn

from flatrecord import Array, ParametersRecord


@turn
def views_that_outlive_a_record():
    record = ParametersRecord({"taken": np.arange(6.0), "copied": np.arange(12.0)[::2], "shared": np.frombuffer(bytes(48))})
    views = [
        *record.to_numpy_ndarrays(),
        *(array.segments() for array in record.values()),
        *(memoryview(array) for array in record.values()),
        *(np.from_dlpack(array) for array in record.values()),
        *(islice(array.chunks(9), 2) for array in record.values()),
    ]
    arrays = list(record.values())
    del record
    assert [array.numpy().sum() for array in arrays] == [15, 30, 0]
    del arrays
    assert views[0].sum() == 15
    views.reverse()  # so that they go in another order than they came


@turn
def writable_ndarrays_that_outlive_a_record():
    out = ParametersRecord({"a": np.arange(6.0), "b": np.arange(12.0)[::2]}).to_numpy_ndarrays(keep_input=False)
    for array in out:
        array += 1
    assert out[0].sum() == 21 and out[1].sum() == 36


@turn
def a_record_that_outlives_its_ndarrays():
    held = np.arange(6.0)
    record = ParametersRecord({"a": held, "part": held[1:]}, keep_input=True, copy=False)
    del held
    assert record["a"].numpy().sum() == record["part"].numpy().sum() == 15


@turn
def a_record_that_outlives_exporters():
    data = bytearray(b"1234")
    record = ParametersRecord({"a": Array("", [4], "", data, copy=False), "b": Array("", [4], "", memoryview(data)[1:], copy=False)})
    record["c"] = Array(np.frombuffer(data, "u1"), copy=False)
    del data
    assert record["b"].data == b"234" and record["c"].numpy()[3] == ord("4")


@turn
def a_record_that_outlives_mappings():
    mapping = mmap.mmap(-1, 4096)
    record = ParametersRecord({"a": np.frombuffer(mapping, "u1")}, keep_input=True, copy=False)
    del mapping
    view = record["a"].numpy()
    del record
    assert view.sum() == 0


@turn
def records_of_records():
    first = ParametersRecord({"a": np.arange(6.0)})
    second, third = first.copy(), ParametersRecord(first, keep_input=True)
    view = second["a"].numpy()
    del first, third
    ParametersRecord(second)
    assert view.sum() == 15 and not second


@turn
def round_and_round():
    out = [np.arange(6.0), np.arange(12.0)[::2]]
    for _ in range(3):
        out = ParametersRecord(out).to_numpy_ndarrays(keep_input=False)


report()
