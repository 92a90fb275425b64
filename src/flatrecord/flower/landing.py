"""Memory in which an Array takes shape as its chunks come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from .._core.array import Array as _Array, _rebuild
from .._core.parts import blank, payload_offset, seal

if TYPE_CHECKING:
    from .chunks import ArrayChunk

AnyArray = TypeVar("AnyArray", bound=_Array)


class Landing:
    """The serialized form of an Array that is not complete yet: its header, and room for its payload.

    Parameters
    ----------
    header : bytes
        What comes before the payload, which is kept apart; may be empty.
    nbytes : int
        Length of the payload in bytes.

    Attributes
    ----------
    ids : list of str
        The object ids of the chunks that have landed, in order.

    Raises
    ------
    MemoryError
        If there is no room for the payload.
    """

    def __init__(self, header: bytes, nbytes: int) -> None:
        self.header = header
        self.nbytes = len(header) + nbytes
        self.ids: list[str] = []
        self._block = blank(nbytes)
        self._at = 0
        self.is_open = True  # the memory is nobody's yet

    @property
    def room(self) -> int:
        """int: how many bytes are still to come."""
        return self.nbytes - self._at

    def segments(self) -> tuple[memoryview, memoryview]:
        """Header and payload, as those of an Array."""
        return memoryview(self.header), memoryview(self._block).toreadonly()

    def add(self, object_id: str, chunk: ArrayChunk) -> None:
        """Copy the next chunk to its place, free what it was received in, and let it show that place."""
        received = chunk.source is None
        found = chunk.pieces()
        start, edge = self._at, len(self.header)
        with memoryview(self._block) as payload:
            for piece in found:
                skipped = min(max(edge - self._at, 0), len(piece))
                self._at += len(piece)
                payload[self._at - len(piece) + skipped - edge : self._at - edge] = piece[skipped:]
        if received:
            chunk.show(self, start, self._at)
        self.ids.append(object_id)

    def finish(self, cls: type[AnyArray], dtype: str, shape: tuple[int, ...], stype: str) -> AnyArray:
        """The Array, on this memory.

        Raises
        ------
        TypeError, ValueError
            If dtype, shape and stype are not those of any Array, or not those in the header.
        """
        self.is_open = False
        seal(self._block)
        made = _rebuild(cls, dtype, shape, False, stype, self.header, self._block)
        return cast(AnyArray, made)

    def fits(self, dtype: str, shape: tuple[int, ...], stype: str) -> bool:
        """Whether the header that is kept apart is that of such an Array."""
        header = header_of(self.header, self.nbytes, dtype, shape) if stype == "numpy.ndarray" else b""
        return header == self.header


def header_of(start: bytes | memoryview, nbytes: int, dtype: str, shape: tuple[int, ...]) -> bytes:
    """What comes before the payload in `nbytes` that begin with `start`; nothing if they are no such ndarray."""
    try:
        return bytes(start[: payload_offset(start, nbytes - len(start), dtype, shape)])
    except ValueError:
        return b""  # kept as they came: `numpy` says what is wrong if it is asked
