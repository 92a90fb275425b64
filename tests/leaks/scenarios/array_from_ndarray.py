"""An Array from an ndarray of each layout, with each `copy`."""

import numpy as np
from _measuring import each, report, turn
from arrays import LAYOUTS

from flatrecord import Array, array_from_numpy

HELD = {name: layout("f4") for name, layout in LAYOUTS.items()}
CONTIGUOUS = {name: array for name, array in HELD.items() if array.flags.c_contiguous or array.flags.f_contiguous}
IMMUTABLE = np.frombuffer(bytes(range(64)), "u1")


@each(HELD)
def held(array):
    Array(array)
    Array.from_numpy_ndarray(array)
    array_from_numpy(array)
    Array(array, copy=True)


@each(CONTIGUOUS)
def borrowed(array):
    Array(array, copy=False)


@turn
def shared():
    for copy in (None, False):
        assert Array(IMMUTABLE, copy=copy).ownership == "shared"
    Array(IMMUTABLE, copy=True)


@turn
def nobody_elses():
    Array(np.arange(3.0))
    Array(np.arange(3.0), copy=False)
    Array(np.arange(24.0).reshape(4, 6)[::2, ::3])


@turn
def of_a_subclass():
    Array(np.arange(3.0).view(np.recarray))


report()
