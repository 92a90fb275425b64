"""What is no record, and what fails when some entries have left their container: all goes back, and nothing stays."""

from types import MappingProxyType

import numpy as np
from _measuring import each, refused, report, turn
from containers import Interrupted, LetsGoAndRaises, Stubborn, StubbornUser, Unreadable, Vanishing

from flatrecord import Array, ArrayRecord, ParametersRecord

HUGE = np.broadcast_to(np.ones(1, "f4"), 1 << 50)
OBJECTS = np.array([None])
HELD = np.arange(6.0)


def made(kind=dict):
    base = np.arange(50.0)
    found = kind()
    for i, value in enumerate((np.arange(3.0), HELD, base[1:], base[:-1], Array(np.arange(3.0)), np.arange(8.0)[::2])):
        found[f"layer{i}"] = value
    return found


@each({"kept": True, "let go": False})
def bad_entries(keep_input):
    source = made()
    for key, value, error in (("bad", OBJECTS, ValueError), ("bad", [1], TypeError), (7, HELD, TypeError)):
        with refused(error):
            ParametersRecord({**source, key: value}, keep_input)
    with refused(ValueError, "not contiguous"):
        ParametersRecord(source, keep_input, copy=False)
    with refused(MemoryError, "key 'huge'"):
        ParametersRecord({**source, "huge": HUGE, "last": HELD}, keep_input)


@turn
def no_container():
    for wrong in (1, "text", iter([]), made, np.arange(3.0), Array(HELD)):
        with refused(TypeError):
            ParametersRecord(wrong)
    with refused(TypeError, "mappingproxy"):
        ParametersRecord(MappingProxyType({"a": HELD}))
    with refused(TypeError, "keep_input"):
        ParametersRecord({}, 1)
    with refused(TypeError, "copy"):
        ParametersRecord({}, copy=1)
    with refused(TypeError):
        ArrayRecord.from_numpy_ndarrays({})


KINDS = {kind.__name__: kind for kind in (Stubborn, LetsGoAndRaises, StubbornUser, Interrupted, Unreadable, Vanishing)}


@each(KINDS)
def a_container_that_fails(kind):
    source = made(kind)
    with refused(BaseException, "never|too late|gone|layer1|^$"):
        ParametersRecord(source)
    assert len(source) == (5 if kind is Vanishing else 6)


class OneWay(Stubborn):
    """Takes nothing back."""

    closed = False

    def __setitem__(self, key, value):
        if self.closed:
            raise KeyError("closed")
        super().__setitem__(key, value)


@turn
def a_container_that_takes_nothing_back():
    source = made(OneWay)
    source.closed = True
    try:
        ParametersRecord(source)
    except RuntimeError as error:
        assert len(error.not_put_back) == 4
    else:
        raise AssertionError("nothing was raised")


hostile: list[bool] = []


class Key(str):
    """Raises from what a dict calls, where `hostile` holds anything."""

    def __hash__(self):
        if hostile:
            raise RuntimeError("hash")
        return super().__hash__()

    __eq__ = str.__eq__


class Turning(dict):
    def __delitem__(self, key):
        hostile.extend([True] * (len(self) < 3))
        super().__delitem__(key)


@turn
def hostile_keys():
    source = Turning({Key(name): np.arange(3.0) for name in "abcd"})
    with refused(RuntimeError, "hash"):
        ParametersRecord(source)
    hostile.clear()


class Same(str):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@turn
def two_keys_of_the_same_text():
    with refused(ValueError, "same text"):
        ParametersRecord({Same("a"): np.arange(3.0), Same("a"): np.arange(4.0)})


class Careless(ParametersRecord):
    array_class = type("Raising", (Array,), {"__new__": lambda cls, *arguments: Array(np.arange(3.0))})


@turn
def a_class_of_arrays_that_misbehaves():
    with refused(TypeError):
        Careless({"a": np.arange(3.0)})


report()
