"""A record from a stream: each payload is allocated when its turn comes, and read to its place."""

from __future__ import annotations

from collections.abc import Callable

from .._core.array import Array
from .._core.parts import blank, seal
from .files import array_from, block_for
from .layout import PREFIX, Layout, dtype_of, header_length, parsed
from .streams import PIECE
from .vectored import SMALL

Fill = Callable[[memoryview], int]


def read_layout(fill: Fill) -> Layout:
    """Read what comes before the payloads.

    Raises
    ------
    EOFError
        If the stream ends before.
    ValueError
        If it is not the beginning of a record.
    """
    prefix = bytearray(PREFIX)
    found = fill(memoryview(prefix))
    if found < PREFIX:
        where = f"after {found} of the {PREFIX} bytes that say how long the header is" if found else "before a record began"
        raise EOFError(f"the stream ended {where}")
    length = header_length(prefix)
    header = bytearray()
    while len(header) < length:  # no more memory than there is header, whatever it claims
        piece = bytearray(min(PIECE, length - len(header)))
        found = fill(memoryview(piece))
        if found < len(piece):
            raise EOFError(f"the stream ended after {len(header) + found} of the header's {length} bytes")
        header += piece
    return parsed(header)


def read_payloads(fill: Fill, layout: Layout) -> dict[str, Array]:
    """Read all payloads, as Arrays in the header's order.

    Raises
    ------
    EOFError
        If the stream ends before.
    MemoryError
        If there is no room for one; the message names the key.
    """
    for name, slot in layout.slots.items():
        if slot.serialized is None:
            dtype_of(name, slot.code)
    arrays: dict[str, Array] = {}

    def checked_fill(view: memoryview, name: str) -> None:
        found = fill(view)
        if found < len(view):
            at = layout.slots[name].start + found
            raise EOFError(f"the stream ended after {at} of {layout.nbytes} bytes of payload, at key {name!r}")

    def take(names: list[str]) -> None:
        """Read small payloads all at once, and give each its own memory."""
        staged = memoryview(bytearray(sum(layout.slots[name].nbytes for name in names)))
        if len(staged):
            checked_fill(staged, names[0])
        for name in names:
            block = blank(layout.slots[name].nbytes)
            with memoryview(block) as view:
                view[:] = staged[: len(block)]
            staged = staged[len(block) :]
            seal(block)
            arrays[name] = array_from(name, layout.slots[name], block)
        names.clear()

    small: list[str] = []
    for name in layout.in_file_order():
        slot = layout.slots[name]
        if slot.nbytes < SMALL:
            small.append(name)
            if slot.stop - layout.slots[small[0]].start >= PIECE:
                take(small)
            continue
        take(small)
        block = block_for(name, slot)
        with memoryview(block) as view:
            checked_fill(view, name)
        seal(block)
        arrays[name] = array_from(name, slot, block)
    take(small)
    return {name: arrays[name] for name in layout.slots}
