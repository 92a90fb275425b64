"""Values on their way out: what the header says of each, and its payload in pieces.

A payload is the value's own memory wherever that is row-major and little-endian. What is not is copied
block by block, so that no whole array is ever there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any

import numpy as np

from .._core.array import Array
from .._core.errors import add_name, type_name
from .._core.foreign import adapter_of
from .._core.parts import header_of
from .layout import CODES, METADATA, Layout, Serialized, Slot, arranged, check_text, little_endian
from .vectored import MOST

BLOCK = 4 << 20  # bytes copied at a time where an array is not in the format's order


class Outgoing:
    """An entry on its way out.

    Attributes
    ----------
    value : Array, numpy.ndarray or torch.Tensor; None
        None once it is written.
    descr : numpy.dtype; None
        Of the elements as they are written; None where they are none of NumPy's.
    """

    __slots__ = ("code", "descr", "name", "nbytes", "serialized", "shape", "value")

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value
        self.serialized: Serialized | None = None
        self.descr: np.dtype | None = None
        if isinstance(value, Array) and value.stype != "numpy.ndarray":
            self._as_bytes(value.nbytes, Serialized(value.dtype, tuple(value.shape), value.stype, b""))
            return
        if isinstance(value, Array):
            dtype, shape = value.numpy().dtype, tuple(value.shape)
        elif isinstance(value, np.ndarray):
            dtype, shape = header_of(value).descr, value.shape
        else:
            adapter = adapter_of(value)
            if adapter is None:
                raise TypeError(f"a value must be an Array, a NumPy array or a torch tensor, got {type_name(value)}")
            adapter.check(value, None)
            dtype, shape = adapter.describe(value)
        self.descr = little_endian(dtype)
        if self.descr in CODES:
            self.code, self.shape, self.nbytes = CODES[self.descr], shape, self.descr.itemsize * prod(shape)
            return
        self.descr = dtype
        if isinstance(value, Array):
            preamble, payload = value.segments()
            self._as_bytes(len(payload), Serialized(value.dtype, shape, value.stype, bytes(preamble)))
        else:
            # An array of that shape without its memory, whose preamble therefore says C order.
            header = header_of(np.broadcast_to(np.empty((), dtype), shape))
            nbytes = dtype.itemsize * prod(shape)
            self._as_bytes(nbytes, Serialized(header.dtype, shape, header.stype, header.preamble))

    def _as_bytes(self, nbytes: int, serialized: Serialized) -> None:
        self.code, self.shape, self.nbytes, self.serialized = "U8", (nbytes,), nbytes, serialized

    @property
    def itemsize(self) -> int:
        """Bytes of an element in memory."""
        return 1 if self.descr is None else self.descr.itemsize

    def pieces(self) -> Iterator[memoryview]:
        """The payload in order, in pieces of any length."""
        value = self.value
        if self.serialized is not None and isinstance(value, Array):
            yield value.segments()[1]
            return
        if isinstance(value, Array):
            value = value.numpy()
        elif not isinstance(value, np.ndarray):
            adapter = adapter_of(value)
            value = adapter.expose(value, adapter.memory_of(value))
        yield from _row_major(value, self.descr)


def _row_major(array: np.ndarray, descr: np.dtype) -> Iterator[memoryview]:
    """The elements of `array` as `descr`, in C order; in place where they lie so."""
    array = np.asarray(array)
    if array.nbytes == 0:
        return
    if array.flags.c_contiguous and array.dtype == descr:
        yield memoryview(array.reshape(-1).view(np.uint8))
    elif array.nbytes <= BLOCK or array.size == 1:
        block = np.empty(array.shape, descr)
        np.copyto(block, array)
        yield memoryview(block.reshape(-1).view(np.uint8))
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
        try:
            entry = Outgoing(name, value)
        except (TypeError, ValueError) as error:
            add_name(error, name)
            raise
        if entry.serialized is not None:
            check_text(f"key {name!r:.80}", entry.serialized.dtype, entry.serialized.stype)
        entries[name] = entry
    starts = arranged({name: (entry.nbytes, entry.itemsize) for name, entry in entries.items()})
    slots = {
        name: Slot(entry.code, entry.shape, starts[name], starts[name] + entry.nbytes, entry.serialized)
        for name, entry in entries.items()
    }
    return [entries[name] for name in starts], Layout(slots, metadata)


def transmit(
    header: bytes,
    entries: Iterable[Outgoing],
    limit: int,
    send: Callable[[list[memoryview]], None],
    seen: Callable[[Outgoing, memoryview], None] | None = None,
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
