"""Python has no memory for one allocation, the first, second, ... of what is done: a MemoryError, and nothing stays.

Needs `_testcapi`, which comes with CPython's own tests.
"""

import _testcapi
from collections import OrderedDict
from itertools import count

import numpy as np
from _measuring import each, report

from flatrecord import Array, ArrayRecord, ParametersRecord

HELD = np.arange(6.0)
DATA = Array(HELD).data


def plain():
    return {f"layer{i}": np.full(5, i, "f4") for i in range(4)}


def views():
    base = np.arange(50.0)
    return {"first": base[1:], "second": base[:-1], "other": np.arange(3.0)}


def tied():
    array = np.arange(7.0)
    return OrderedDict(a=array, b=np.arange(2.0), c=array, d=np.arange(12.0)[::3], e=HELD)


def arrays():
    shared = Array(np.arange(9.0))
    return [shared, shared, Array("", (), "numpy.ndarray", DATA), Array(np.zeros((2, 2), "f4"))]


def there_and_back(made):
    for cls, keep_input in ((ParametersRecord, False), (ArrayRecord, True)):
        record = cls(made(), keep_input)
        record.to_numpy_ndarrays()
        record.to_numpy_ndarrays(keep_input=False)


def ways_out(made):
    array = Array("float64", (6,), "numpy.ndarray", DATA)
    array.numpy(), array.data, repr(array), memoryview(array), list(array.chunks(50)), array.segments()
    assert array == Array(HELD)


WORK = {made.__name__: (there_and_back, made) for made in (plain, views, tied, arrays)} | {"ways out": (ways_out, None)}
counters = {name: count() for name in WORK}
PERIOD = 1000  # allocations, more than any of these makes


def fails(name, first):
    """Do this work without memory for one allocation, and say whether that was noticed."""
    work, made = WORK[name]
    _testcapi.set_nomemory(first, first + 1)
    try:
        work(made)
    except MemoryError:
        return True
    finally:
        _testcapi.remove_mem_hooks()
    return False


for name in WORK:
    assert sum(fails(name, first) for first in range(1, PERIOD)) > 20 and not fails(name, PERIOD)


@each({name: name for name in WORK})
def an_allocation_fails(name):
    fails(name, 1 + next(counters[name]) % PERIOD)


report()
