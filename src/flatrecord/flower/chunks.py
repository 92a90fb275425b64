"""ArrayChunk: what Flower sends and receives at a time."""

from __future__ import annotations

from typing import Protocol, Self

from flwr.app.message.arraychunk import ArrayChunk as _FlowerArrayChunk
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_object_children_ids_from_object_content

from .wire import body, head, run


class Serialized(Protocol):
    """What has a header and a payload: an Array, or what is to be one."""

    def segments(self) -> tuple[memoryview, memoryview]:
        """The header and the payload."""
        ...


class Landed(bytes):
    """In place of an object's content: the head alone, and the chunk, whose bytes have landed elsewhere."""

    chunk: ArrayChunk


class ArrayChunk(_FlowerArrayChunk):
    """A run of at most 5 MiB of an Array's serialized form: what Flower sends and receives at a time.

    Parameters
    ----------
    data : memoryview
        The bytes, which are not copied.

    Attributes
    ----------
    source : object or None
        The Array, or the memory that is to become one, of which it shows a part; None while it holds bytes that were received.

    Notes
    -----
    One that was cut from an Array is a view on it. One that was received holds its bytes until they are put
    in their place in an Array, and shows that place from then on.
    """

    def __init__(self, data: memoryview) -> None:
        self._received: memoryview | None = data
        self.source: Serialized | None = None

    @classmethod
    def of(cls, source: Serialized, start: int, stop: int, object_id: str | None = None) -> Self:
        """A chunk that shows bytes `start` to `stop` of an Array."""
        chunk = cls.__new__(cls)
        if object_id is not None:
            chunk.__dict__["_object_id"] = object_id
        chunk.show(source, start, stop)
        return chunk

    def show(self, source: Serialized, start: int, stop: int) -> None:
        """Show bytes `start` to `stop` of an Array from now on."""
        self.source, self._start, self._stop = source, start, stop
        self._received = None

    def pieces(self) -> list[memoryview]:
        """The bytes as one view, or as two where header and payload both have a part in them; no copy."""
        if self.source is not None:
            return run(*self.source.segments(), self._start, self._stop)
        assert self._received is not None
        return [self._received]

    @property
    def nbytes(self) -> int:
        """int: number of bytes."""
        return sum(map(len, self.pieces()))

    @property
    def data(self) -> memoryview:  # type: ignore[override]  # bytes in Flower's: a view does all that is done with them
        """memoryview: the bytes; a copy only of a chunk that holds both header and payload."""
        found = self.pieces()
        return found[0] if len(found) == 1 else memoryview(b"".join(found))

    @property
    def is_dirty(self) -> bool:
        """bool: whether the object id has to be computed."""
        return "_object_id" not in self.__dict__

    def deflate(self) -> bytes:
        """The chunk as it goes over the wire, in one copy."""
        found = self.pieces()
        return b"".join([head("ArrayChunk", (), sum(map(len, found))), *found])

    @classmethod
    def inflate(cls, object_content: bytes, children: dict[str, InflatableObject] | None = None) -> ArrayChunk:
        """Make a chunk of what came over the wire, without a copy.

        Raises
        ------
        ValueError
            If it is an object of another type, or has children.
        """
        if isinstance(object_content, Landed):
            return object_content.chunk
        found = body(object_content, "ArrayChunk")
        if children or get_object_children_ids_from_object_content(object_content):
            raise ValueError("an ArrayChunk has no children")
        return cls(found)
