"""Values of every kind that a record may be given, made from a recipe, so that nothing but the record has them.

A strategy that drew the values themselves would keep them, and with them their memory.
"""

import copy
import ctypes
import io
import mmap
import pickle
import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from aliasing import shown
from arrays import ALL_DTYPES, LAYOUTS, as_void, npy
from hypothesis import strategies as st

from flatrecord import Array


class Recipe(NamedTuple):
    """How to make a value."""

    kind: str
    dtype: int  # place in a list
    layout: str
    number: int  # whatever else there is to choose
    keep: str  # by what its maker goes on to reach its memory


@dataclass(frozen=True)
class Expected:
    """What an Array has to be."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    data: bytes
    family: int | None = None  # of those with whom it shares memory by the caller's word
    kind: Any = None  # what it was made of; what is made of different kinds need not stay tied

    @property
    def readable(self) -> bool:
        return self.stype == "numpy.ndarray"


NOTHING_KEPT = "nothing"
KEEPS = [*[NOTHING_KEPT] * 6, "array", "view", "weak reference", "memoryview", "base"]
KINDS = [
    *["fresh"] * 4, *["again"] * 2, *["part"] * 3, *["held"] * 3, *["array of a record"] * 2, *["held array"] * 2,
    "exporter", "exporter", "subclass", "read-only", "new array", "array of bytes", "foreign array", "large", "wrong",
]  # fmt: skip
EXPORTERS = ["bytes", "bytearray", "memoryview", "mapping", "read-only mapping", "ctypes", "dlpack", "unpickled", "ndarray"]
WRONG = [1, None, "text", [1.0], {}, np.array([None]), np.ma.masked_array([1.0, 2.0])]


class Odd(str):
    """A text that is like no other until it is a key of a record."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class Alike(str):
    """A text of a class of its own."""


class Mine(np.ndarray):
    """An ndarray that may have further references to its memory."""


TEXTS = st.one_of(
    st.sampled_from(["a", "b", "0", "1", "", "weight", "größe", "名", "\0", "a\0b", "\ud800", "\U0001f600", "__metadata__"]),
    st.text(st.characters(exclude_categories=()), max_size=4),
)
KEYS = st.one_of(TEXTS, TEXTS, TEXTS.map(Alike))
WRONG_KEYS = st.sampled_from([1, None, b"a", ("a",), 1.5])

recipes = st.runner().flatmap(
    lambda machine: st.builds(
        Recipe,
        st.sampled_from(machine.kinds),
        st.integers(0, len(ALL_DTYPES) - 1),
        st.sampled_from(list(LAYOUTS)),
        st.integers(0, 999),
        st.sampled_from(KEEPS),
    )
)


def scribble(thing: Any, number: int) -> None:
    """Write other bytes to everything that a writable thing shows. Zeros and ones, which any dtype can have."""
    array = shown(thing)
    if array.size and array.itemsize:
        raw = np.random.default_rng(number).integers(0, 2, array.size * array.itemsize, dtype=np.uint8)
        array[...] = raw.view(array.dtype).reshape(array.shape)


def made(dtype: np.dtype, layout: str, number: int) -> np.ndarray:
    """An ndarray that nobody else has."""
    array = LAYOUTS[layout](dtype)
    if array.flags.writeable:
        scribble(array, number)
    return array


def on_exporter(kind: str, dtype: np.dtype, number: int, keep: list[Any] | None) -> np.ndarray:
    """An ndarray on the memory of something else; a way to write to that goes into `keep`."""
    raw = np.random.default_rng(number).integers(0, 2, dtype.itemsize * (1 + number % 9), dtype=np.uint8).tobytes()
    if kind == "unpickled":
        return pickle.loads(pickle.dumps(np.frombuffer(raw, dtype).copy(), 4))
    exporter: Any = {
        "bytes": lambda: raw,
        "bytearray": lambda: bytearray(raw),
        "memoryview": lambda: memoryview(bytearray(raw)),
        "mapping": lambda: mmap.mmap(-1, len(raw)),
        "read-only mapping": lambda: mmap.mmap(-1, len(raw), prot=mmap.PROT_READ),
        "ctypes": lambda: (ctypes.c_char * len(raw)).from_buffer_copy(raw),
        "dlpack": lambda: np.from_dlpack(np.frombuffer(raw, "u1").copy()),
        "ndarray": lambda: memoryview(np.frombuffer(raw, "u1").copy()),
    }[kind]()
    if keep is not None:
        keep.append(exporter if isinstance(exporter, np.ndarray) else memoryview(exporter))
    return np.asarray(exporter).view(dtype) if kind in ("ndarray", "dlpack") else np.frombuffer(exporter, dtype)


def part_of(array: np.ndarray, number: int) -> np.ndarray:
    """A view on some of an ndarray's memory, where its layout allows that."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array
    choices = [array[...], array.T, flat, flat[: (len(flat) + 1) // 2] if flat.ndim else flat,
               flat[len(flat) // 3 :] if flat.ndim else flat, flat[::2] if flat.ndim else flat]  # fmt: skip
    return choices[number % len(choices)]


def kept(array: np.ndarray, keep: str) -> Any:
    """Something by which to reach the memory of `array`; None if nothing is wanted."""
    if keep == "array":
        return array
    if keep == "view":
        return array[...]
    if keep == "weak reference":
        return weakref.ref(array)
    if keep == "base":
        return array.base if isinstance(array.base, np.ndarray) else array
    if keep == "memoryview":
        try:
            np.asarray(memoryview(array))
        except (ValueError, RuntimeError):  # the buffer protocol has no code for its dtype, or NumPy cannot read it
            return array
        return memoryview(array)
    return None


def expected(array: np.ndarray, kind: Any = None) -> Expected:
    """What an Array of `array` has to be."""
    return Expected(str(array.dtype), array.shape, "numpy.ndarray", npy(array), None, kind)


def of_fields(expected: Expected, data: Any = None, copy: bool | None = None, cls: type[Array] = Array) -> Array:
    return cls(expected.dtype, expected.shape, expected.stype, expected.data if data is None else data, copy=copy)


def elements(expected: Expected) -> bytes:
    """The elements in C order, as NumPy reads them."""
    return as_void(np.load(io.BytesIO(expected.data))).tobytes()


def subclassed(array: np.ndarray, number: int) -> np.ndarray:
    """`array` as a subclass that may keep a reference of its own, or a copy in its attributes."""
    if number % 3 == 0 and array.dtype.names is None:
        return array.view(np.recarray)
    mine = array.view(Mine)
    mine.note = array if number % 3 == 1 else copy.copy(array)
    return mine
