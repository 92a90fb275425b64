"""Array and ArrayChunk: Flower's classes on compiled storage."""

from __future__ import annotations

import json
from collections.abc import Iterable
from operator import index
from typing import Any, Self

from flwr.app import Array as _FlowerArray
from flwr.app.message.arraychunk import ArrayChunk as _FlowerArrayChunk
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_children_ids_from_object_content,
    get_object_id,
)

from .._core.array import Array as _Array
from .._core.array import _rebuild
from .._core.foreign import adapter, adapter_of
from .._core.parts import blank, payload_offset, seal
from .hashing import ids_of_chunks
from .wire import body, head, pieces, run, spans

FIELDS = ("dtype", "shape", "stype", "data")


class ArrayChunk(_FlowerArrayChunk):
    """A run of at most 5 MiB of an Array's serialized form: what Flower sends and receives at a time.

    Parameters
    ----------
    data : memoryview
        The bytes, which are not copied.

    Notes
    -----
    One that was cut from an Array is a view on it. One that was received holds its bytes until it is put
    in its place in an Array, and shows that place from then on.
    """

    def __init__(self, data: memoryview) -> None:
        self._received: memoryview | None = data
        self.array: Array | None = None  # of which it shows a part; None if it holds bytes that were received

    @classmethod
    def _of(cls, array: Array, start: int, stop: int, object_id: str) -> Self:
        chunk = cls.__new__(cls)
        chunk.__dict__["_object_id"] = object_id
        chunk._settle(array, start, stop)
        return chunk

    def _take_out(self) -> list[memoryview]:
        """The bytes; those that were received are the caller's, and freed when he lets go."""
        found = self._pieces()
        self._received = None
        return found

    def _settle(self, array: Array, start: int, stop: int) -> None:
        """Show bytes `start` to `stop` of an Array from now on."""
        self.array, self._start, self._stop = array, start, stop
        self._received = None

    def _pieces(self) -> list[memoryview]:
        if self.array is not None:
            return pieces(self.array, self._start, self._stop)
        assert self._received is not None
        return [self._received]

    @property
    def data(self) -> memoryview:  # type: ignore[override]
        """memoryview: the bytes; a copy only of a chunk that holds both header and payload."""
        found = self._pieces()
        return found[0] if len(found) == 1 else memoryview(b"".join(found))

    @property
    def is_dirty(self) -> bool:
        """bool: whether the object id has to be computed."""
        return "_object_id" not in self.__dict__

    def deflate(self) -> bytes:
        """The chunk as it goes over the wire, in one copy."""
        found = self._pieces()
        return b"".join([head("ArrayChunk", (), sum(map(len, found))), *found])

    @classmethod
    def inflate(cls, object_content: bytes, children: dict[str, InflatableObject] | None = None) -> ArrayChunk:
        """Make a chunk of what came over the wire, without a copy.

        Raises
        ------
        ValueError
            If it is an object of another type, or has children.
        """
        if children:
            raise ValueError("an ArrayChunk has no children")
        return cls(body(object_content, "ArrayChunk"))


class Array(_Array, _FlowerArray):
    """Array(dtype=None, shape=None, stype=None, data=None, *, ndarray=None, torch_tensor=None, copy=None)

    Flower's ``Array`` on compiled storage: an instance of both ``flwr.app.Array`` and `flatrecord.Array`.

    Parameters
    ----------
    dtype : str, numpy.ndarray or torch.Tensor
        Name of the dtype, as in ``str(ndarray.dtype)``. Or an ndarray or tensor, and nothing else.
    shape : sequence of int
        Sizes of the axes, in elements.
    stype : str
        Name of the serialization; ``"numpy.ndarray"`` is the ``.npy`` format.
    data : bytes-like
        The serialized array; `bytes` are not copied.
    ndarray, torch_tensor : keyword only
        The same as an ndarray or a tensor in the first place.
    copy : {None, True, False}, keyword only
        As for `flatrecord.Array`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for `flatrecord.Array`.

    Notes
    -----
    Object ids, deflated content and children are those of Flower's own class. The SHA-256 that they take is
    computed once and kept. If `copy` is False and the memory is written to after that, whoever receives
    the array refuses it; once it has been sent the ids are forgotten, so that the next message has new ones.

    Unlike Flower's, an Array is immutable, and `numpy` gives a read-only view.
    """

    # Not in __dict__: an id must not get into a pickle or a deep copy, as borrowed memory may have changed.
    __slots__ = ("_object_id", "_chunk_ids")

    def __init__(
        self,
        dtype: Any = None,
        shape: Any = None,
        stype: str | None = None,
        data: Any = None,
        *,
        ndarray: Any = None,
        torch_tensor: Any = None,
        copy: bool | None = None,
    ) -> None:
        if torch_tensor is not None:
            if any(value is not None for value in (dtype, shape, stype, data, ndarray)):
                raise TypeError("Array takes one of an ndarray, a torch tensor, or dtype, shape, stype and data")
            if adapter_of(torch_tensor) is not adapter("torch"):
                raise TypeError(f"torch_tensor must be a torch.Tensor, got {type(torch_tensor).__name__}")
            dtype = torch_tensor
        super().__init__(dtype, shape, stype, data, ndarray=ndarray, copy=copy)

    def __setattr__(self, name: str, value: object) -> None:
        if name in FIELDS:
            raise AttributeError(f"{name}: an Array is immutable: make a new one")
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _FlowerArray) and not isinstance(other, _Array):
            other = flat(other)
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def is_dirty(self) -> bool:
        """bool: whether the object id has to be computed."""
        return not hasattr(self, "_object_id")

    @property
    def object_id(self) -> str:
        """str: SHA-256 of the deflated Array, in hexadecimal."""
        if self.is_dirty:
            self._object_id = get_object_id(self.deflate())
        return self._object_id

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state:  # what a pickle holds of one of Flower's own
            super().__init__(*(state[name] for name in FIELDS))

    def forget_ids(self) -> None:
        """Let the ids be computed anew when they are asked for: to be called after borrowed memory has changed."""
        for name in ("_object_id", "_chunk_ids"):
            if hasattr(self, name):
                delattr(self, name)

    def slice_array(self) -> list[tuple[str, InflatableObject]]:
        """The chunks of the serialized Array, as views on its memory.

        Returns
        -------
        list of tuple of str and ArrayChunk
            Object ids and chunks, in order; the same id twice where the bytes are the same.
        """
        identify([self])
        return [
            (object_id, ArrayChunk._of(self, start, stop, object_id))
            for object_id, (start, stop) in zip(self._chunk_ids, spans(self), strict=True)
        ]

    @property
    def children(self) -> dict[str, InflatableObject]:
        """dict of str to ArrayChunk: the chunks by their object ids."""
        return dict(self.slice_array())

    def deflate(self) -> bytes:
        """What goes over the wire beside the chunks: dtype, shape, stype and the chunks' ids."""
        identify([self])
        places = {object_id: i for i, object_id in enumerate(dict.fromkeys(self._chunk_ids))}
        fields = {
            "dtype": self.dtype,
            "shape": self.shape,
            "stype": self.stype,
            "arraychunk_ids": [places[object_id] for object_id in self._chunk_ids],
        }
        content = json.dumps(fields).encode()
        return head("Array", places, len(content)) + content

    @classmethod
    def inflate(cls, object_content: bytes, children: dict[str, InflatableObject] | None = None) -> Array:
        """Make an Array of what came over the wire: each chunk is put in its place and freed.

        Parameters
        ----------
        object_content : bytes
            The deflated Array.
        children : dict of str to ArrayChunk
            Its chunks. They show the Array's memory afterwards.

        Raises
        ------
        ValueError
            If the content is not that of an Array, or the chunks are not those that it names.
        MemoryError
            If there is no room for the Array.
        """
        try:
            fields = json.loads(bytes(body(object_content, "Array")))
            dtype, shape, stype = str(fields["dtype"]), tuple(fields["shape"]), str(fields["stype"])
            order = [index(i) for i in fields["arraychunk_ids"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is not a deflated Array: {error!r}") from error
        names = get_object_children_ids_from_object_content(object_content)
        chunks = {name: _chunk_of(child) for name, child in (children or {}).items()}
        if chunks.keys() != set(names) or set(order) != set(range(len(names))):
            raise ValueError(f"an Array of {len(names)} chunks got {len(chunks)}, or does not say where each belongs")
        return _landed(cls, dtype, shape, stype, [chunks[names[i]] for i in order])


def _chunk_of(child: InflatableObject) -> ArrayChunk:
    if not isinstance(child, _FlowerArrayChunk):
        raise ValueError(f"an Array is made of ArrayChunks, got {type(child).__name__}")
    return child if isinstance(child, ArrayChunk) else ArrayChunk(child.data)


def _landed(cls: type[Array], dtype: str, shape: tuple[int, ...], stype: str, chunks: list[ArrayChunk]) -> Array:
    """An Array made of its chunks in order, each of which is freed as soon as it has been copied."""
    nbytes = sum(len(piece) for chunk in chunks for piece in chunk._pieces())
    header = _header_of(chunks[0].data, nbytes, dtype, shape) if chunks and stype == "numpy.ndarray" else b""
    block = blank(nbytes - len(header))
    places: dict[int, tuple[int, int]] = {}  # id of a chunk -> where it is in the Array
    at = 0
    with memoryview(block) as target:
        for chunk in chunks:
            if id(chunk) in places:  # the same bytes once more
                found = run(header, target, *places[id(chunk)])
            else:
                found = chunk._take_out()
            start = at
            for piece in found:
                skipped = min(max(len(header) - at, 0), len(piece))
                at += len(piece)
                target[at - len(piece) + skipped - len(header) : at - len(header)] = piece[skipped:]
            places.setdefault(id(chunk), (start, at))
            del piece, found
    seal(block)
    array = _rebuild(cls, dtype, shape, False, stype, header, block)
    for chunk in chunks:
        chunk._settle(array, *places[id(chunk)])
    return array


def _header_of(start: memoryview, nbytes: int, dtype: str, shape: tuple[int, ...]) -> bytes:
    """What comes before the payload in `nbytes` that begin with `start`; nothing if they are not what they should be."""
    try:
        return bytes(start[: payload_offset(start, nbytes - len(start), dtype, shape)])
    except ValueError:
        return b""  # kept as they came: `numpy` says what is wrong if it is asked


def flat(value: Any) -> Any:
    """`value`, or where that is one of Flower's own Arrays an Array on its bytes."""
    if isinstance(value, _FlowerArray) and not isinstance(value, _Array):
        return Array(value.dtype, tuple(value.shape), value.stype, value.data)
    return value


def identify(arrays: Iterable[Array]) -> None:
    """Compute the ids of all chunks that have none yet, of several arrays at once."""
    new = [array for array in arrays if not hasattr(array, "_chunk_ids")]
    for array, ids in zip(new, ids_of_chunks(new), strict=True):
        array._chunk_ids = ids
