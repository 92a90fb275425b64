"""Objects on their way to the other end, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Condition, Event, Lock

from flwr.app.message.arraychunk import ArrayChunk as _FlowerArrayChunk
from flwr.supercore.constant import FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_object_id

from .arrays import Array
from .chunks import ArrayChunk
from .records import ArrayRecord
from .wire import CHUNK

SMALL_AT_ONCE = 16  # objects, where each is small: it is not the bytes that take the time, but the way there and back


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
        How many whole chunks are under way at a time, or as many smaller objects as have their size together, up to 16.

    Raises
    ------
    ValueError
        If the other end refuses an array because its memory was written to after its id was computed; the
        message names the key.
    Exception
        Whatever `push_object_fn` raises.
    """
    wanted = [object_id for object_id in objects if object_ids_to_push is None or object_id in object_ids_to_push]
    records = [found for found in objects.values() if isinstance(found, ArrayRecord)]
    borrowed = [found for found in objects.values() if isinstance(found, Array) and found.ownership == "borrowed"]
    # All but chunks is small, and is computed from what a record holds before it is consumed.
    contents = {
        object_id: objects[object_id].deflate()
        for object_id in wanted
        if not isinstance(objects[object_id], _FlowerArrayChunk)
    }
    consumption = _Consumption([record for record in records if record.consumable], set(wanted))
    waiting, lock, stop = iter(wanted), Lock(), Event()
    under_way = _UnderWay(max_concurrent_pushes * CHUNK)

    def work() -> None:
        while not stop.is_set():
            with lock:
                object_id = next(waiting, None)
                if object_id is None:
                    return
                found = objects[object_id] if keep_objects else objects.pop(object_id)
                content = contents.pop(object_id, None)
                nbytes = under_way.begin(_size(found) if content is None else len(content))
            try:
                content = found.deflate() if content is None else content
                push_object_fn(object_id, content)
            except BaseException as error:
                stop.set()
                if isinstance(found, ArrayChunk) and content is not None:
                    _explain(error, get_object_id(content) != object_id, _keys_of(found, records))
                raise
            finally:
                under_way.end(nbytes)
            del found, content
            consumption.acknowledged(object_id)

    workers = 1 if max_concurrent_pushes == 1 else max(min(SMALL_AT_ONCE, len(wanted)), 1)
    pool = ThreadPoolExecutor(workers, "flatrecord-push")
    try:
        for done in as_completed([pool.submit(work) for _ in range(workers)]):
            done.result()
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for array in borrowed:
            array.forget_ids()  # what is sent next may be other values


class _UnderWay:
    """So many bytes that are made and sent at a time."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = self._free = nbytes
        self._changed = Condition()

    def begin(self, nbytes: int) -> int:
        """Wait until there is room for `nbytes`; what is larger than all the room has it for itself."""
        nbytes = min(nbytes, self._nbytes)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= nbytes)
            self._free -= nbytes
        return nbytes

    def end(self, nbytes: int) -> None:
        """They have been sent, or not."""
        with self._changed:
            self._free += nbytes
            self._changed.notify()


def _size(chunk: InflatableObject) -> int:
    return chunk.nbytes if isinstance(chunk, ArrayChunk) else len(chunk.data)  # type: ignore[attr-defined]


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
        for array, chunks in list(self._missing.items()):
            for chunk in chunks:
                self._arrays.setdefault(chunk, []).append(array)
            self._let_go_of(array)

    def acknowledged(self, object_id: str) -> None:
        """The other end has this object."""
        with self._lock:
            for array in self._arrays.pop(object_id, ()):
                self._missing[array].discard(object_id)
                self._let_go_of(array)

    def _let_go_of(self, array: int) -> None:
        if not self._missing[array]:
            for record, key in self._places[array]:
                record.pop(key, None)
