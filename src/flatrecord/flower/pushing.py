"""Objects on their way to the other end, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from threading import Condition, Lock
from typing import Any

from flwr.app.message.arraychunk import ArrayChunk as _FlowerArrayChunk
from flwr.supercore.constant import FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_object_id

from ..threads import together
from .chunks import ArrayChunk
from .records import ArrayRecord

SMALL = 1 << 16  # bytes of an object of which it is not the bytes that take the time, but the way there and back
SMALL_AT_ONCE = 16


def push_objects(
    objects: dict[str, InflatableObject],
    push_object_fn: Callable[[str, bytes], None],
    *,
    object_ids_to_push: set[str] | None = None,
    keep_objects: bool = False,
    max_concurrent_pushes: int = FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES,
) -> None:
    """Push objects to the other end: what Flower's function of this name does, in bounded memory.

    Flower's own makes the content of every object before the first has been sent. Here each thread makes one,
    sends it, and lets go of it before it makes the next.

    Parameters
    ----------
    objects : dict of str to InflatableObject
        Objects by their ids. Those that are pushed leave it unless `keep_objects` is True.
    push_object_fn : callable
        Takes an object id and content, and raises if the other end does not store it.
    object_ids_to_push : set of str, optional
        Which objects to push; all if it is None.
    keep_objects : bool
        Whether `objects` stays as it is.
    max_concurrent_pushes : int
        How many objects are under way at a time; up to 16 small ones, unless it is 1.

    Raises
    ------
    ValueError
        If the other end refuses an array because its memory was written to after its id was computed; the
        message names the key.
    Exception
        Whatever `push_object_fn` raises.
    """
    records = [found for found in objects.values() if isinstance(found, ArrayRecord)]
    try:
        _push(objects, records, push_object_fn, object_ids_to_push, keep_objects, max(max_concurrent_pushes, 1))
    finally:
        for record in records:
            array: Any
            for array in record.values():
                if array.ownership == "borrowed":
                    array.forget_ids()  # what is sent next may be other values


def _push(
    objects: dict[str, InflatableObject],
    records: list[ArrayRecord],
    push_object_fn: Callable[[str, bytes], None],
    object_ids_to_push: set[str] | None,
    keep_objects: bool,
    few: int,
) -> None:
    wanted = [object_id for object_id in objects if object_ids_to_push is None or object_id in object_ids_to_push]
    # All but chunks is small, and is computed from what a record holds before it is consumed.
    contents = {object_id: objects[object_id].deflate() for object_id in wanted if not isinstance(objects[object_id], _FlowerArrayChunk)}
    consumption = _Consumption([record for record in records if record.consumable], set(wanted))
    sizes = [len(contents[name]) if name in contents else _size(objects[name]) for name in wanted]
    turns = _Turns(wanted, sizes, few)

    def work(thread: int) -> None:
        while (object_id := turns.next(thread)) is not None:
            found = objects[object_id] if keep_objects else objects.pop(object_id)
            content = contents.pop(object_id, None)
            try:
                content = found.deflate() if content is None else content
                push_object_fn(object_id, content)
            except BaseException as error:
                turns.stop()
                if isinstance(found, ArrayChunk) and content is not None:
                    _explain(error, get_object_id(content) != object_id, _keys_of(found, records))
                raise
            del found, content
            consumption.acknowledged(object_id)

    try:
        together(work, 1 if few == 1 else max(few, min(SMALL_AT_ONCE, len(wanted))), "flatrecord-push")
    finally:
        turns.stop()
    consumption.finish()


class _Turns:
    """Hands out objects in order: the large ones to a few of the threads, the small ones to all.

    Each thread has an arena of the C library's allocator, which keeps some of what is freed: the fewer have had large blocks, the
    less there is.
    """

    def __init__(self, object_ids: list[str], sizes: list[int], few: int) -> None:
        self._ids, self._sizes, self._few = object_ids, sizes, few
        self._at = 0
        self._changed = Condition()

    def next(self, thread: int) -> str | None:
        """The next object for the thread of this number; None if none is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._at == len(self._ids) or thread < self._few or self._sizes[self._at] <= SMALL)
            if self._at == len(self._ids):
                return None
            self._at += 1
            self._changed.notify_all()
            return self._ids[self._at - 1]

    def stop(self) -> None:
        """Hand out no more."""
        with self._changed:
            self._at = len(self._ids)
            self._changed.notify_all()


def _size(chunk: InflatableObject) -> int:
    return chunk.nbytes if isinstance(chunk, ArrayChunk) else len(chunk.data)  # type: ignore[attr-defined]  # or Flower's own


def _keys_of(chunk: ArrayChunk, records: Iterable[ArrayRecord]) -> str:
    return ", ".join(repr(key) for record in records for key, array in record.items() if array is chunk.source)


def _explain(error: BaseException, changed: bool, keys: str) -> None:
    """Say of what array a chunk did not arrive, and raise a clearer error where we know of one."""
    if not changed:
        error.add_note(f"while sending key {keys}")
        return
    raise ValueError(
        f"key {keys}: the array's memory was written to after its object id was computed, so that the other end "
        "refuses it: with copy=False, leave the model alone until the message has been sent"
    ) from error


class _Consumption:
    """Takes out of records what the other end has acknowledged."""

    def __init__(self, records: Collection[ArrayRecord], wanted: set[str]) -> None:
        self._lock = Lock()
        self._places: dict[int, list[tuple[ArrayRecord, str]]] = {}  # id of an Array -> where it is
        self._missing: dict[int, set[str]] = {}  # id of an Array -> its chunks that are under way
        self._arrays: dict[str, list[int]] = {}  # id of a chunk -> ids of the Arrays that have it
        for record in records:
            for key, array in record.items():
                self._places.setdefault(id(array), []).append((record, key))
                self._missing[id(array)] = wanted.intersection(array.children)
        for known, chunks in self._missing.items():
            for chunk in chunks:
                self._arrays.setdefault(chunk, []).append(known)

    def acknowledged(self, object_id: str) -> None:
        """The other end has this object."""
        with self._lock:
            for array in self._arrays.pop(object_id, ()):
                self._missing[array].discard(object_id)
                self._let_go_of(array)

    def finish(self) -> None:
        """The other end has everything: also what it had before, and was not sent again."""
        for array in self._missing:
            self._let_go_of(array)

    def _let_go_of(self, array: int) -> None:
        if not self._missing[array]:
            for record, key in self._places[array]:
                record.pop(key, None)
