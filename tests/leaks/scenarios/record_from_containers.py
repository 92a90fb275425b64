"""A record from each kind of container, with each `keep_input` and `copy`, of Arrays, ndarrays, or both."""

from collections import OrderedDict, UserDict
from types import MappingProxyType

import numpy as np
from _measuring import each, report, turn

from flatrecord import Array, ArrayRecord, ParametersRecord

HELD = {"a": np.arange(6.0), "b": np.zeros((0, 3), "f4"), "c": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
ARRAYS = {"x": Array(np.arange(3.0)), "y": Array("mine", [1], "mine", b"1234")}
IMMUTABLE = np.frombuffer(bytes(range(64)), "u1")


def made():
    """What nobody else holds, and what is held here."""
    base = np.arange(50.0)
    values = {"own": np.arange(4.0), "first": base[:40], "second": base[10:], "immutable": IMMUTABLE, "array": Array(np.arange(3.0))}
    return {**HELD, **ARRAYS, **values}


def user_dict(values):
    found = UserDict()
    found.update(values)
    return found


CONTAINERS = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "UserDict": user_dict,
    "list": lambda values: list(values.values()),
    "record": lambda values: ParametersRecord(values, keep_input=True, copy=False),
}


@each(CONTAINERS)
def let_go(container):
    for copy in (None, True, False):
        source = container(made())
        ParametersRecord(source, copy=copy)
        assert not source


@each(CONTAINERS)
def kept(container):
    for copy in (None, True, False):
        source = container(made())
        ArrayRecord(source, copy=copy)
        assert len(source) == 10


@turn
def from_what_cannot_let_go():
    ArrayRecord(MappingProxyType(HELD))
    ArrayRecord(tuple(HELD.values()))


@turn
def from_sequences_and_nothing():
    ParametersRecord.from_numpy_ndarrays([np.arange(3.0)])
    ArrayRecord.from_numpy_ndarrays((HELD["a"],))
    ParametersRecord(), ParametersRecord({}), ParametersRecord([])


class Name(str):
    pass


class Mine(ParametersRecord):
    array_class = type("Tagged", (Array,), {})


@turn
def with_keys_and_classes_of_ones_own():
    ParametersRecord({Name("a"): np.arange(3.0)})
    record = Mine({"a": np.arange(3.0), "b": ARRAYS["x"]})
    record.note, record["a"].note = ["something"], ["something"]
    record.copy()


@turn
def strided():
    for keep_input in (False, True):
        ParametersRecord({"a": np.arange(24.0).reshape(4, 6)[::2, ::3], "b": HELD["a"][::2], "c": HELD["a"][::-1]}, keep_input)


@turn
def metadata():
    source = OrderedDict(HELD)
    source._metadata = {"": {"version": [1]}}
    record = ParametersRecord(source, keep_input=True)
    ParametersRecord(record)


report()
