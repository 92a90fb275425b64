"""Array: Flower's class on compiled storage."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

from flwr.app import Array as _FlowerArray
from flwr.app.message.arraychunk import ArrayChunk as _FlowerArrayChunk
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_children_ids_from_object_content,
    get_object_id,
)

from .._core.array import Array as _Array
from .._core.foreign import adapter, adapter_of
from .chunks import ArrayChunk
from .hashing import object_ids
from .landing import Landing, header_of
from .wire import fields, head, spans

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from typing_extensions import Buffer

FIELDS = ("dtype", "shape", "stype", "data")


class Array(_Array, _FlowerArray):  # type: ignore[misc, override]  # Flower's has fields where ours has properties
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

    Unlike Flower's, an Array is immutable. Unlike that of `flatrecord.Array`, `numpy` copies unless it is told not to.
    """

    # Not in __dict__: an id must not get into a pickle or a deep copy, as borrowed memory may have changed.
    __slots__ = ("_chunk_ids", "_object_id")

    _object_id: str | None
    _chunk_ids: list[str] | None

    def __init__(
        self,
        dtype: NDArray[Any] | Tensor | str | None = None,
        shape: Sequence[int] | None = None,
        stype: str | None = None,
        data: Buffer | None = None,
        *,
        ndarray: NDArray[Any] | None = None,
        torch_tensor: Tensor | None = None,
        copy: bool | None = None,
    ) -> None:
        if torch_tensor is not None:
            if any(value is not None for value in (dtype, shape, stype, data, ndarray)):
                raise TypeError("Array takes one of an ndarray, a torch tensor, or dtype, shape, stype and data")
            if adapter_of(torch_tensor) is not adapter("torch"):
                raise TypeError(f"torch_tensor must be a torch.Tensor, got {type(torch_tensor).__name__}")
            dtype = torch_tensor
        super().__init__(dtype, shape, stype, data, ndarray=ndarray, copy=copy)  # type: ignore[arg-type, misc]  # the core says which go together

    def __setattr__(self, name: str, value: object) -> None:
        if name in FIELDS:
            raise AttributeError(f"{name}: an Array is immutable: make a new one")
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _FlowerArray) and not isinstance(other, _Array):
            other = flat(other)
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # object says that all have one

    @property  # type: ignore[misc]  # which nobody need set
    def is_dirty(self) -> bool:
        """bool: whether the object id has to be computed."""
        return getattr(self, "_object_id", None) is None

    @property
    def object_id(self) -> str:
        """str: SHA-256 of the deflated Array, in hexadecimal."""
        found = getattr(self, "_object_id", None)
        if found is None:
            found = self._object_id = get_object_id(self.deflate())
        return found

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state:  # what a pickle holds of one of Flower's own
            super().__init__(*(state[name] for name in FIELDS))

    def forget_ids(self) -> None:
        """Let the ids be computed anew when they are asked for: to be called after borrowed memory has changed."""
        self._object_id = self._chunk_ids = None

    def numpy(self, copy: bool | None = None) -> NDArray[Any]:
        """The array as an ndarray, writable and independent as Flower gives it.

        Parameters
        ----------
        copy : {None, True, False}
            None and True copy; False gives a read-only view on this Array's memory.

        Returns
        -------
        numpy.ndarray
            Of the dtype, shape and order that was put in; ml_dtypes included.

        Raises
        ------
        TypeError, ValueError
            As `flatrecord.Array.numpy`.
        """
        return super().numpy(True if copy is None else copy)

    def slice_array(self) -> list[tuple[str, InflatableObject]]:
        """The chunks of the serialized Array, as views on its memory.

        Returns
        -------
        list of tuple of str and ArrayChunk
            Object ids and chunks, in order; the same id twice where the bytes are the same.
        """
        (ids,) = identify([self])
        return [(object_id, ArrayChunk.of(self, start, stop, object_id)) for object_id, (start, stop) in zip(ids, spans(self), strict=True)]

    @property
    def children(self) -> dict[str, InflatableObject]:
        """dict[str, ArrayChunk]: the chunks by their object ids."""
        return dict(self.slice_array())

    def deflate(self) -> bytes:
        """What goes over the wire beside the chunks: dtype, shape, stype and the chunks' ids."""
        (ids,) = identify([self])
        places = {object_id: i for i, object_id in enumerate(dict.fromkeys(ids))}
        described = {
            "dtype": self.dtype,
            "shape": self.shape,
            "stype": self.stype,
            "arraychunk_ids": [places[object_id] for object_id in ids],
        }
        content = json.dumps(described).encode()
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
            If the content is not that of an Array, or the chunks are not those that it names, or one of them has
            been corrupted on its way: its SHA-256 is not its object id. (Flower itself does not look.)
        MemoryError
            If there is no room for the Array.
        """
        found = fields(object_content, "Array")
        try:
            dtype, shape, stype = found["dtype"], tuple(map(index, found["shape"])), found["stype"]
            if not (isinstance(dtype, str) and isinstance(stype, str)):
                raise TypeError(f"dtype {dtype!r:.80} and stype {stype!r:.80} must be str")
            order = [index(i) for i in found["arraychunk_ids"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is not a deflated Array: {error!r}") from error
        names = get_object_children_ids_from_object_content(object_content)
        chunks = {name: _chunk_of(child) for name, child in (children or {}).items()}
        if chunks.keys() != set(names) or set(order) != set(range(len(names))):
            raise ValueError(f"an Array of {len(names)} chunks got {len(chunks)}, or does not say where each belongs")
        _verify(chunks, f"{dtype} of shape {shape}")
        names = [names[i] for i in order]
        array = _landed(names, [chunks[name] for name in names], dtype, shape, stype).finish(cls, dtype, shape, stype)
        if [chunks[name].nbytes for name in names] == [stop - start for start, stop in spans(array)]:
            array._chunk_ids = names  # as they would be if it were sent
        return array


def _verify(chunks: dict[str, ArrayChunk], what: str) -> None:
    """Raise a ValueError if a chunk that has just been received is not what its object id says."""
    new = {name: chunk for name, chunk in chunks.items() if chunk.source is None}
    for name, found in zip(new, object_ids(list(new.values())), strict=True):
        if found != name:
            raise ValueError(f"an array ({what}) was corrupted on its way: chunk {name} came with the SHA-256 {found}")


def _chunk_of(child: InflatableObject) -> ArrayChunk:
    if not isinstance(child, _FlowerArrayChunk):
        raise ValueError(f"an Array is made of ArrayChunks, got {type(child).__name__}")
    return child if isinstance(child, ArrayChunk) else ArrayChunk(child.data)


def _landed(names: list[str], chunks: list[ArrayChunk], dtype: str, shape: tuple[int, ...], stype: str) -> Landing:
    """The memory of an Array with all its chunks in place, each of which is freed as soon as it has been copied."""
    if chunks and isinstance(chunks[0].source, Landing):
        landing = chunks[0].source
        if landing.ids == names and landing.is_open and landing.room == 0 and landing.fits(dtype, shape, stype):
            return landing  # as they came
    nbytes = sum(chunk.nbytes for chunk in chunks)
    header = header_of(chunks[0].data, nbytes, dtype, shape) if chunks and stype == "numpy.ndarray" else b""
    landing = Landing(header, nbytes - len(header))
    for name, chunk in zip(names, chunks, strict=True):
        landing.add(name, chunk)
    return landing


def flat(value: Any) -> Any:
    """`value`, or where that is one of Flower's own Arrays an Array on its bytes."""
    if isinstance(value, _FlowerArray) and not isinstance(value, _Array):
        return Array(value.dtype, tuple(value.shape), value.stype, value.data)
    return value


def identify(arrays: Iterable[Array]) -> list[list[str]]:
    """The ids of the chunks of some arrays; those that are not known yet are computed together, and kept."""
    arrays = list(arrays)
    known = [getattr(array, "_chunk_ids", None) for array in arrays]
    new = {id(array): array for array, ids in zip(arrays, known, strict=True) if ids is None}
    found = iter(object_ids([ArrayChunk.of(array, *span) for array in new.values() for span in spans(array)]))
    computed = {name: [next(found) for _ in spans(array)] for name, array in new.items()}
    for name, array in new.items():
        array._chunk_ids = computed[name]
    # Not what is kept there by now: another thread may have let it be forgotten.
    return [computed[id(array)] if ids is None else ids for array, ids in zip(arrays, known, strict=True)]
