"""Cycles: each kind is collected, whole.

The arrays have 200 numbers, as of smaller ones NumPy keeps some that are freed, and after a collection not always the same. There
are no cycles through the base of a plain ndarray here, which does not tell the collector what it has its memory from: of NumPy alone,
``base.view = np.asarray(base)`` stays for ever, where `base` is of a subclass with attributes.
"""

import numpy as np
from _measuring import report, turn

from flatrecord import Array, ArrayRecord, ParametersRecord


class Labelled(np.ndarray):
    """An ndarray with attributes."""


class Tagged(Array):
    pass


class Mine(ParametersRecord):
    array_class = Tagged


class Owner(bytearray):
    """An exporter with attributes."""


@turn(collected=True)
def a_record_that_has_itself():
    record = Mine({"a": np.arange(200.0)})
    record.own = record


@turn(collected=True)
def an_array_that_has_itself():
    array = Tagged(np.arange(200.0))
    array.own = array


@turn(collected=True)
def an_array_that_has_its_record():
    record = Mine({"a": np.arange(200.0)})
    record["a"].record = record


@turn(collected=True)
def borrowed_memory_whose_owner_has_the_record():
    array = np.arange(200.0).view(Labelled)
    array.record = ArrayRecord({"a": array}, copy=False)


@turn(collected=True)
def an_exporter_that_has_the_array():
    owner = Owner(b"1234")
    owner.array = Array("", [4], "", owner, copy=False)
    owner.view = owner.array.segments()[1]


@turn(collected=True)
def a_memoryview_in_between():
    owner = Owner(b"1234")
    owner.record = ParametersRecord({"a": Array("", [3], "", memoryview(owner)[1:], copy=False)})


@turn(collected=True)
def views_that_lead_back():
    array = Tagged(np.arange(200.0))
    array.view = array.numpy()
    array.views = [array.segments(), memoryview(array), np.from_dlpack(array)]
    labelled = array.numpy().view(Labelled)
    labelled.array, array.labelled = array, labelled


@turn(collected=True)
def chunks_half_way():
    array = Tagged(np.arange(200.0))
    array.iterator = array.chunks(9)
    next(array.iterator)
    array.own = array


@turn(collected=True)
def two_records():
    first, second = Mine({"a": np.arange(200.0)}), Mine()
    second["a"] = first["a"]
    first.other, second.other = second, first


@turn(collected=True)
def an_error_that_has_the_record():
    record = Mine({"a": np.arange(200.0)})
    try:
        record["b"]
    except KeyError as error:
        record.error = error


class OneWay(dict):
    """Takes nothing back."""

    def __delitem__(self, key):
        if key == "a":
            raise RuntimeError("never")
        super().__delitem__(key)

    def __setitem__(self, key, value):
        raise RuntimeError("never")


@turn(collected=True)
def what_was_not_put_back():
    source = OneWay(a=np.arange(200.0), b=np.arange(200.0))
    try:
        ParametersRecord(source)
    except RuntimeError as error:
        assert [key for key, _ in error.not_put_back] == ["b"]
        source.error = error


report()
