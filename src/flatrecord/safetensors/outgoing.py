"""Values on their way out: what the header says of each, and its payload in pieces.

A payload is the value's own memory wherever that is row-major and little-endian. What is not is copied
block by block, so that no whole array is ever there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .._core.array import Array
from .._core.errors import add_name, type_name
from .._core.foreign import adapter_of
from .._core.parts import dtype_and_shape, header_of, row_major
from .layout import CODES, METADATA, Layout, Serialized, Slot, arranged, check_text, little_endian
from .vectored import MOST

BLOCK = 4 << 20  # bytes copied at a time where an array is not in the format's order


@dataclass(frozen=True, slots=True)
class Deferred:
    """An ndarray that is there only while it is written."""

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


class Outgoing:
    """An entry on its way out.

    Attributes
    ----------
    value : Array, numpy.ndarray, Deferred or torch.Tensor; None
        None once it is written.
    code, shape : str and tuple of int
        What the header says that it is.
    nbytes, itemsize : int
        Length of the payload, and of one element, in bytes.
    serialized : Serialized or None
        What restores it, where the format has no dtype for it.

    Raises
    ------
    TypeError, ValueError
        If the value cannot be written; the message names the key.
    """

    __slots__ = ("_descr", "code", "itemsize", "name", "nbytes", "serialized", "shape", "value")

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value
        self.code, self.itemsize = "U8", 1
        self.serialized: Serialized | None = None
        self._descr: np.dtype | None = None  # of what is written; None where an Array is written as it is serialized
        try:
            dtype, shape = described(value)
        except (TypeError, ValueError) as error:
            add_name(error, name)
            raise
        descr = None if dtype is None else little_endian(dtype)
        if descr is not None and descr in CODES:
            self.code, self.shape, self._descr, self.itemsize = CODES[descr], shape, descr, descr.itemsize
            self.nbytes = descr.itemsize * prod(shape)
            return
        if dtype is not None:
            self.itemsize = dtype.itemsize
        if isinstance(value, Array):
            preamble, payload = value.segments()
            self.serialized = Serialized(value.dtype, shape, value.stype, bytes(preamble))
            self.nbytes = len(payload)
        else:
            # An array of that shape without its memory, whose preamble therefore says C order.
            header = header_of(np.broadcast_to(np.empty((), dtype), shape))
            self.serialized = Serialized(header.dtype, shape, header.stype, header.preamble)
            self._descr, self.nbytes = dtype, self.itemsize * prod(shape)
        self.shape = (self.nbytes,)

    def pieces(self) -> Iterator[memoryview]:
        """The payload in order, in pieces of any length."""
        if self._descr is None:
            yield self.value.segments()[1]
        elif isinstance(self.value, Array) and (lies := row_major(self.value, self._descr)) is not None:
            yield lies
        else:
            yield from _row_major(shown(self.value), self._descr)


def described(value: Any) -> tuple[np.dtype | None, tuple[int, ...]]:
    """Dtype and shape of a value; no dtype where an Array is none of NumPy's."""
    if isinstance(value, Array):
        return dtype_and_shape(value)
    if isinstance(value, np.ndarray):
        return header_of(value).descr, value.shape
    if isinstance(value, Deferred):
        return value.dtype, value.shape
    adapter = adapter_of(value)
    if adapter is None:
        raise TypeError(f"a value must be an Array, a NumPy array or a torch tensor, got {type_name(value)}")
    adapter.check(value, None)
    found: tuple[np.dtype | None, tuple[int, ...]] = adapter.describe(value)
    return found


def shown(value: Any) -> np.ndarray:
    """A value as an ndarray, on its own memory where that can be."""
    if isinstance(value, Array):
        return value.numpy(copy=False)
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if isinstance(value, Deferred):
        return value.read()
    adapter: Any = adapter_of(value)
    array: np.ndarray = adapter.expose(value, adapter.memory_of(value))
    return array


def _row_major(array: np.ndarray, descr: np.dtype) -> Iterator[memoryview]:
    """The elements of `array` as `descr`, in C order; in place where they lie so."""
    if array.nbytes == 0:
        return
    if array.flags.c_contiguous and array.dtype == descr:
        yield array.reshape(-1).view(np.uint8).data
    elif array.nbytes <= BLOCK or array.size == 1:
        # NumPy does not copy the gaps of a structure, and what happened to be there is nobody's business.
        block = (np.zeros if descr.kind == "V" else np.empty)(array.shape, descr)
        np.copyto(block, array)
        yield block.reshape(-1).view(np.uint8).data
    else:
        rows = max(1, BLOCK * len(array) // array.nbytes)
        for i in range(0, len(array), rows):
            yield from _row_major(array[i] if rows == 1 and array.ndim > 1 else array[i : i + rows], descr)


def plan(items: Iterable[tuple[Any, Any]], metadata: dict[str, str]) -> tuple[list[Outgoing], Layout]:
    """What is to be written: the entries in file order, and the layout of the whole.

    Raises
    ------
    TypeError, ValueError
        If a key or value cannot be written; the message names the key.
    """
    entries: dict[str, Outgoing] = {}
    for name, value in items:
        if not isinstance(name, str):
            raise TypeError(f"a key must be str, got {type(name).__name__}: {name!r:.80}")
        if name == METADATA:
            raise ValueError(f"key {name!r}: safetensors keeps this name for itself")
        check_text(f"key {name!r:.80}", name)
        entry = Outgoing(name, value)
        if entry.serialized is not None:
            check_text(f"key {name!r:.80}", entry.serialized.dtype, entry.serialized.stype)
        entries[name] = entry
    starts = arranged({name: (entry.nbytes, entry.itemsize) for name, entry in entries.items()})
    slots = {
        name: Slot(entry.code, entry.shape, starts[name], starts[name] + entry.nbytes, entry.serialized) for name, entry in entries.items()
    }
    return [entries[name] for name in starts], Layout(slots, metadata)


def transmit(
    header: bytes,
    entries: Iterable[Outgoing],
    limit: int,
    send: Callable[[list[memoryview]], None],
    seen: Callable[[Outgoing, memoryview], None] | None = None,
    done: Callable[[Outgoing], None] | None = None,
) -> None:
    """Send a header and payloads, and let go of each value once it is sent.

    Parameters
    ----------
    limit : int
        The most bytes in one batch.
    send : callable
        Sends a batch of memoryviews, whole.
    seen : callable, optional
        Is told of each piece before it is sent, and whose it is.
    done : callable, optional
        Is told of each entry once it is sent.
    """
    batch: list[memoryview] = []
    room = limit
    written: list[Outgoing] = []

    def flush() -> None:
        if batch:
            send(batch)
        batch.clear()
        for entry in written:
            entry.value = None
            if done is not None:
                done(entry)
        written.clear()

    send([memoryview(header)])
    for entry in entries:
        for piece in entry.pieces():
            at = 0
            while at < len(piece):
                part = piece[at : at + room]
                at += len(part)
                room -= len(part)
                if seen is not None:
                    seen(entry, part)
                batch.append(part)
                del part  # or it would keep the memory beyond its time
                if room == 0 or len(batch) == MOST:
                    flush()
                    room = limit
            del piece
        written.append(entry)
    flush()
