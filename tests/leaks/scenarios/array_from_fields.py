"""An Array from its four fields: each kind of data, shape and text."""

import array
import mmap

import numpy as np
from _measuring import each, report, turn

from flatrecord import Array

DATA = Array(np.arange(6.0)).data
FILE = mmap.mmap(-1, 4096)


class Text(str):
    pass


@each(
    {
        "bytes": DATA,
        "bytearray": bytearray(DATA),
        "memoryview": memoryview(DATA),
        "a part": memoryview(DATA)[3:],
        "array": array.array("d", [1, 2]),
        "ndarray": np.arange(5),
        "mapping": FILE,
        "empty": b"",
    }
)
def data(data):
    for copy in (None, True, False):
        Array("float64", (6,), "numpy.ndarray", data, copy=copy)
        Array("", [2, 3], "mine", data, copy=copy)


@turn
def data_that_nobody_else_holds():
    Array("uint8", [70], "mine", bytes(70))
    Array("uint8", [70], "mine", bytearray(70), copy=False)
    Array("uint8", [700], "mine", memoryview(bytearray(700))[1:], copy=False)


@turn
def text_of_a_subclass():
    Array(Text("float64"), (np.int64(6), True), Text("numpy.ndarray"), DATA)


@turn
def read_after_it_was_received():
    received = Array("float64", (6,), "numpy.ndarray", DATA)
    received.numpy()
    received.numpy(copy=True)
    received.data, received.nbytes, received.shape, received.dtype, received.stype, received.ownership
    assert received == Array("float64", (6,), "numpy.ndarray", DATA)
    assert received != Array(np.arange(6.0)[::-1])


report()
