"""Every kind of dtype, in and out: numbers, text, dates, structures, those of ml_dtypes."""

import ml_dtypes
import numpy as np
from _measuring import each, report
from arrays import PADDED, filled

from flatrecord import Array

# One of a kind. Not V0, of which NumPy 2.4 itself leaks a reference: with d = np.dtype("V0"), sys.getrefcount(d) grows with each
# np.zeros(3, d).
DTYPES = [
    *("?", "i1", "f4", ">f4", "F", "S5", "U3", ">U3", "V7", "M8[ns]", "m8[25s]", "M8"),
    *("bfloat16", "float8_e5m2", "float8_e4m3fn", "float4_e2m1fn", "int4", "complex32"),
    [("größe", "<f4"), ("名", ">i8", (2, 3))],
    [(("title", "name"), "<f8"), ("nested", [("p", "<f4")])],
    PADDED,
]


def named(dtype):
    return np.dtype(getattr(ml_dtypes, dtype, dtype) if isinstance(dtype, str) else dtype)


@each({str(dtype): filled((3, 4), named(dtype)) for dtype in DTYPES})
def there_and_back(value):
    array = Array(value)
    array.numpy()
    array.numpy(copy=True)
    data = array.data
    received = Array(array.dtype, array.shape, array.stype, data)
    received.numpy()
    assert received.nbytes == len(data)


report()
