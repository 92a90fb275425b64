"""Pickles, with the memory in band, and by protocol 5 out of band, copies and deep copies; of subclasses too."""

import copy
import pickle

import numpy as np
from _measuring import each, refused, report, turn

from flatrecord import Array, ParametersRecord


class Tagged(Array):
    """With attributes."""


class Slotted(Array):
    __slots__ = ("tag",)


class Mine(ParametersRecord):
    array_class = Tagged


def of_class(cls):
    made = cls(np.arange(6.0))
    made.tag = ["something"]
    return made


VALUES = {
    "snapshot": Array(np.arange(6.0)),
    "borrowed": Array(np.arange(6.0), copy=False),
    "received": Array("float64", (6,), "numpy.ndarray", Array(np.arange(6.0)).data),
    "structured": Array(np.zeros(3, [("a", "f4")])),
    "tagged": of_class(Tagged),
    "slotted": of_class(Slotted),
    "record": ParametersRecord([np.arange(6.0), np.ones(3)[::2]]),
    "record with ties": ParametersRecord({"a": (array := Array(np.ones(4))), "b": array}),
    "record of a subclass": Mine([np.arange(6.0)]),
}


@each(VALUES)
def pickled(value):
    for protocol in (2, 5):
        assert pickle.loads(pickle.dumps(value, protocol)) == value


@each(VALUES)
def pickled_out_of_band(value):
    buffers = []
    data = pickle.dumps(value, 5, buffer_callback=buffers.append)
    pickle.loads(data, buffers=buffers)
    pickle.loads(data, buffers=[bytearray(buffer) for buffer in buffers])


@each(VALUES)
def copied(value):
    copy.copy(value)
    assert copy.deepcopy(value) == value
    copy.deepcopy([value, value])


@turn
def a_deep_copy_that_fails():
    made = Tagged(np.arange(3.0))
    made.module = copy
    with refused(TypeError, "cannot pickle 'module'"):
        copy.deepcopy(made)


report()
