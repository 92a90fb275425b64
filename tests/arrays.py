"""The dtypes and layouts that everything has to hold for, and what NumPy makes of them."""

import io
import warnings

import ml_dtypes
import numpy as np

from flatrecord import ParametersRecord


def npy(array: np.ndarray) -> bytes:
    """What ``numpy.save`` writes, and ``numpy.load`` reads: void for float8_e5m2 and complex32."""
    array = np.array(as_void(array), order="A").view(array.dtype) if array.dtype.names == () else array
    return saved(array).replace(b"{'descr': '<f1'", b"{'descr': '|V1'").replace(b"{'descr': '<W4'", b"{'descr': '|V4'")


def as_void(array: np.ndarray) -> np.ndarray:
    """`array`; one of a structure without fields as void, since NumPy copies field by field, and so leaves what it finds."""
    return array.view((np.void, array.itemsize)) if array.dtype.names == () else array


def saved(array: np.ndarray) -> bytes:
    """What ``numpy.save`` writes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces format 3.0, which field names may need
        np.save(file, array, allow_pickle=False)
    return file.getvalue()


def filled(shape, dtype) -> np.ndarray:
    """An array of `dtype` whose bytes differ from element to element."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.random.default_rng(count).integers(0, 2, count * dtype.itemsize, dtype=np.uint8)
    if dtype.itemsize == 0:
        return np.zeros(shape, dtype)
    return raw.view(dtype).reshape(shape) if count else np.zeros(shape, dtype)


def entered(value, **options) -> str:
    """How a value enters a record when the dict that is given holds the one reference to it."""
    return ParametersRecord({"x": value()}, **options)["x"].ownership


def check_taken(value) -> None:
    """Whether `value`, which makes what nobody else holds, enters a record as each option says."""
    assert entered(value) == "taken"
    assert entered(value, copy=True) == "snapshot"
    assert entered(value, copy=False) == "borrowed"
    assert entered(value, keep_input=True) == "snapshot"
    assert entered(value, keep_input=True, copy=False) == "borrowed"


def model(entries: int = 4) -> dict[str, np.ndarray]:
    """A small state_dict, each array filled with its number."""
    return {f"layer{i}": np.full((8, 4), i, "f4") for i in range(entries)}


NUMPY_DTYPES = [
    *"?bBhHiIlLqQefdgFDG",
    ">i2", ">f4", ">f8", ">c16", "<u4",
    "S5", "U3", ">U3", "V7", "V0",
    "M8[ns]", "m8[25s]", "M8[D]", "M8",
    [("a", "<f4"), ("b", ">i8", (2, 3))],
    [("größe", "<f4"), ("名", "i1")],
    [(("title", "name"), "<f8")],
    [("it's", "<f4"), ('back\\slash"', "<i2"), ("line\nbreak", "?")],
    [("nested", [("p", "<f4"), ("q", [("r", "u1")])])],
]  # fmt: skip
# Apart from the others, because NumPy leaves the gaps of a copy uninitialised, so its bytes differ.
PADDED = np.dtype({"names": ["x", "y"], "formats": ["i1", "f8"], "offsets": [1, 8], "itemsize": 20})
ML_DTYPES = sorted(
    name for name in dir(ml_dtypes) if isinstance(getattr(ml_dtypes, name), type) and issubclass(getattr(ml_dtypes, name), np.generic)
)
ALL_DTYPES = [np.dtype(d) for d in NUMPY_DTYPES] + [np.dtype(getattr(ml_dtypes, name)) for name in ML_DTYPES]

LAYOUTS = {
    "c_order": lambda dtype: filled((3, 4), dtype),
    "fortran_order": lambda dtype: np.asfortranarray(filled((3, 4), dtype)),
    "zero_dimensional": lambda dtype: filled((), dtype),
    "one_element": lambda dtype: filled((1, 1, 1), dtype),
    "empty": lambda dtype: filled((0, 3), dtype),
    "strided": lambda dtype: filled((4, 6), dtype)[::2, ::3],
    "reversed": lambda dtype: filled((5,), dtype)[::-1],
    "transposed": lambda dtype: filled((2, 3, 4), dtype).transpose(2, 0, 1),
    "broadcast": lambda dtype: np.broadcast_to(filled((3,), dtype), (4, 3)),
    "column": lambda dtype: filled((4, 5), dtype)[:, 2],
}
