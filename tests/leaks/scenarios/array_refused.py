"""What is no Array: each fault of the arguments, a copy for which there is no room, and pickles of nonsense."""

import numpy as np
from _measuring import each, refused, report, turn

from flatrecord import Array
from flatrecord._core.array import _rebuild
from flatrecord._core.parts import array_of_block, blank, seal

HUGE = np.broadcast_to(np.ones(1, "f4"), 1 << 50)
OBJECTS = np.array([None])
TEXT = np.array(["a"], "T")
MASKED = np.ma.masked_array([1])
STRIDED = np.arange(8.0)[::2]

CASES = {
    "nothing": (TypeError, "dtype must be str", {}),
    "no data": (TypeError, "data is missing", {"dtype": "f4", "shape": [], "stype": ""}),
    "a list": (TypeError, "got list", {"dtype": [1]}),
    "no ndarray": (TypeError, "must be a NumPy array", {"ndarray": [1]}),
    "both": (TypeError, "not both", {"ndarray": STRIDED, "stype": ""}),
    "a wrong copy": (TypeError, "copy must be", {"ndarray": STRIDED, "copy": 1}),
    "objects": (ValueError, "without pickle", {"ndarray": OBJECTS}),
    "text of any length": (ValueError, "without pickle", {"ndarray": TEXT}),
    "a mask": (TypeError, "mask", {"ndarray": MASKED}),
    "strides": (ValueError, "not contiguous", {"ndarray": STRIDED, "copy": False}),
    "no room": (MemoryError, "cannot allocate", {"ndarray": HUGE}),
    "data that is text": (TypeError, "bytes-like", {"dtype": "f4", "shape": [], "stype": "", "data": "abc"}),
    "data with strides": (ValueError, "C-contiguous", {"dtype": "f4", "shape": [], "stype": "", "data": STRIDED}),
    "a shape of text": (TypeError, "sequence of integers", {"dtype": "f4", "shape": "ab", "stype": "", "data": bytearray(9)}),
    "a negative size": (ValueError, "negative", {"dtype": "f4", "shape": [-1], "stype": "", "data": b"1234"}),
}


@each(CASES)
def arguments(case):
    error, text, options = case
    with refused(error, text):
        Array(**options)


@turn
def made_a_second_time():
    array = Array(np.arange(3.0))
    with refused(TypeError, "immutable"):
        array.__init__(np.arange(3.0))
    with refused(AttributeError):
        array.dtype = "f4"


class Hostile(np.ndarray):
    """Raises where its shape is asked for."""

    @property
    def shape(self):
        raise RuntimeError("shape")


HOSTILE = np.zeros(3, [("x", "f4")]).view(Hostile)


@turn
def an_ndarray_whose_code_raises():
    with refused(RuntimeError, "shape"):
        Array(HOSTILE)


class Odd(Array):
    kept = Array(np.arange(3.0))

    def __new__(cls, *arguments):
        return cls.kept


class Raising(Array):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        raise RuntimeError("late")


@turn
def subclasses_that_misbehave():
    with refused(TypeError, "in use|not a class"):
        _rebuild(Odd, "f4", (1,), False, "", b"", BLOCK)
    with refused(RuntimeError, "late"):
        Raising(np.arange(3.0))


def block(nbytes):
    made = blank(nbytes)
    seal(made)
    return made


BLOCK = block(4)
PREAMBLE = bytes(Array(np.zeros(1, "f4")).segments()[0])


@each(
    {
        "no class": (TypeError, (int, "float32", (1,), False, "numpy.ndarray", PREAMBLE)),
        "no text": (TypeError, (Array, b"float32", (1,), False, "numpy.ndarray", PREAMBLE)),
        "another shape": (ValueError, (Array, "float32", (2,), False, "numpy.ndarray", PREAMBLE)),
        "another stype": (ValueError, (Array, "float32", (1,), False, "mine", PREAMBLE)),
        "a broken preamble": (ValueError, (Array, "float32", (1,), False, "numpy.ndarray", PREAMBLE[:-1])),
        "bytes after it": (ValueError, (Array, "float32", (1,), False, "numpy.ndarray", PREAMBLE + b" ")),
    }
)
def parts_that_do_not_agree(case):
    error, arguments = case
    with refused(error):
        _rebuild(*arguments, BLOCK)
    with refused(TypeError):
        _rebuild(*arguments[:-1], b"", b"no Buffer")


@turn
def blocks_that_do_not_fit():
    with refused(ValueError, "needs"):
        array_of_block(BLOCK, np.dtype("f8"), (1,))
    with refused(ValueError, "axes"):
        array_of_block(BLOCK, np.dtype("f4"), (1,) * 65)
    with refused(MemoryError):
        blank(1 << 60)
    filled = blank(9)
    with memoryview(filled) as view, refused(BufferError, "kept a view"):
        view[:] = bytes(9)
        seal(filled)
    seal(filled)


report()
