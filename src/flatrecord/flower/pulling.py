"""Objects on their way in: each chunk is put in its place as it arrives."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from threading import Condition, Event, Lock
from typing import TypeVar

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import (
    FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PULLS,
    PULL_BACKOFF_CAP,
    PULL_INITIAL_BACKOFF,
    PULL_MAX_TIME,
    PULL_MAX_TRIES_PER_OBJECT,
)
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_object_id, iterate_object_tree

from .._core.parts import extent
from ..threads import together
from . import limits
from .chunks import ArrayChunk, Landed
from .landing import Landing
from .wire import CHUNK, head, is_chunk

SMALL = 1 << 16  # bytes of an object of which it is not the bytes that take the time, but the way there and back
SMALL_AT_ONCE, GROWS_AFTER = 8, 8

Inflated = TypeVar("Inflated", bound=InflatableObject)


class ObjectRefusedError(inflatable_utils.ObjectPullError, ValueError):
    """An object came, and is not taken. To Flower it is one that could not be pulled, so that its Grid goes on with other messages."""


def pull_objects(
    object_ids: list[str],
    pull_object_fn: Callable[[str], bytes],
    *,
    max_concurrent_pulls: int = FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PULLS,
    max_time: float | None = PULL_MAX_TIME,
    max_tries_per_object: int | None = PULL_MAX_TRIES_PER_OBJECT,
    initial_backoff: float = PULL_INITIAL_BACKOFF,
    backoff_cap: float = PULL_BACKOFF_CAP,
) -> dict[str, bytes]:
    """Pull objects from the other end: what Flower's function of this name does, in the memory of the arrays alone.

    Flower's own keeps the contents of all objects until the last has come. Here a chunk is copied to its place in its
    array as soon as those before it have come, and its content is freed. Each object is compared with its id.

    Parameters
    ----------
    object_ids : list of str
        Objects in the order of their tree, children before their parents.
    pull_object_fn : callable
        Takes an object id and returns the content, or raises ``ObjectUnavailableError`` to be asked again.
    max_concurrent_pulls : int
        How many objects are under way at a time; up to 8 while one small object comes after the other.
    max_time, max_tries_per_object
        After how many seconds, and tries, an object that is not available is given up; never if None.
    initial_backoff, backoff_cap : float
        How many seconds to wait before an object is asked for again, at first and at most.

    Returns
    -------
    dict of str to bytes
        Contents by object ids, to be inflated with our classes; of a chunk that has landed, the head alone.

    Raises
    ------
    ObjectRefusedError
        A ValueError, and an ObjectPullError: if an object was corrupted on its way, or a chunk is not as Flower sends it; or if the
        objects, or the Arrays that they stand for, take more memory than a message may (``FLATRECORD_MESSAGE_MIB``; that of
        the machine if it is not set).
    ObjectPullError
        If an object is given up; and whatever else `pull_object_fn` raises.
    MemoryError
        If there is no room for an Array.
    """
    arrivals, waiting = Arrivals(object_ids), iter(dict.fromkeys(object_ids))
    lock, stop = Lock(), Event()
    width = _Width(max(max_concurrent_pulls, 1))
    deadline = time.monotonic() + (float("inf") if max_time is None else max_time)

    def pull(object_id: str) -> bytes | None:
        """The content of an object; None if somebody else has failed meanwhile."""
        tries, delay = 0, initial_backoff
        while not stop.is_set():
            try:
                return pull_object_fn(object_id)
            except inflatable_utils.ObjectUnavailableError:
                tries += 1
                if (max_tries_per_object is not None and tries >= max_tries_per_object) or time.monotonic() > deadline:
                    raise inflatable_utils.ObjectPullError(object_id, "timeout or retry limit reached") from None
            stop.wait(delay * random.uniform(0.8, 1.2))
            delay = min(2 * delay, backoff_cap)
        return None

    def work(thread: int) -> None:
        content: bytes | None = None
        while width.enter(thread):
            try:
                with lock:
                    object_id = next(waiting, None)
                if object_id is None:
                    width.close()
                    return
                content = pull(object_id)
                if content is None:
                    return
                found = get_object_id(content)
                if found != object_id:
                    words = f"an object was corrupted on its way: {object_id} came with the SHA-256 {found}"
                    raise ObjectRefusedError(object_id, words)
                arrivals.add(object_id, content)
            except BaseException:
                stop.set()
                width.close()
                raise
            finally:
                width.leave(0 if content is None else len(content))
                content = None

    try:
        together(work, min(max(max_concurrent_pulls, SMALL_AT_ONCE), max(len(object_ids), 1)), "flatrecord-pull")
    finally:
        stop.set()
        width.close()
    try:
        limits.check_arrays(arrivals.contents)
    except ValueError as error:
        raise ObjectRefusedError(object_ids[-1], str(error)) from None
    return arrivals.contents


def pull_and_inflate_object_from_tree(
    object_tree: ObjectTree,
    pull_object_fn: Callable[[str], bytes],
    confirm_object_received_fn: Callable[[str], None],
    *,
    return_type: type[Inflated] = InflatableObject,  # type: ignore[assignment]  # as Flower has it
    **options: float | None,
) -> Inflated:
    """Pull an object and all below it, and inflate it: Flower's function of this name, with our `pull_objects`."""
    ids = [tree.object_id for tree in iterate_object_tree(object_tree)]
    contents = pull_objects(ids, pull_object_fn, **options)  # type: ignore[arg-type]  # which of Flower's options is what
    confirm_object_received_fn(object_tree.object_id)
    found = inflatable_utils.inflate_object_from_contents(object_tree.object_id, contents)
    if not isinstance(found, return_type):
        raise TypeError(f"expected an object of type {return_type.__name__}, got {type(found).__name__}")
    return found


class _Width:
    """How many objects are under way at a time: how large the next ones are is not known before they come."""

    def __init__(self, least: int) -> None:
        self._least = self._now = least
        self._active = self._small = 0
        self._closed = False
        self._changed = Condition()

    def enter(self, thread: int) -> bool:
        """Wait for the turn of the thread of this number; False if there is none any more."""
        with self._changed:
            # The same few threads for large ones: each has an arena of the allocator, which keeps some of what is freed.
            self._changed.wait_for(lambda: self._closed or max(thread, self._active) < self._now)
            self._active += 1
            return not self._closed

    def close(self) -> None:
        """There is nothing left to do, or no sense in doing it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def leave(self, nbytes: int) -> None:
        """An object of so many bytes has come, or none."""
        with self._changed:
            self._active -= 1
            self._small = self._small + 1 if nbytes < SMALL else 0
            self._now = min(self._least + self._small // GROWS_AFTER, max(SMALL_AT_ONCE, self._least))
            self._changed.notify_all()


class Arrivals:
    """Contents of objects, of which chunks of ndarrays are put in their place.

    The first chunk of an ndarray says how long it is, and its others follow in the order of the tree. Where that does
    not come true, since the same chunk is there several times or a peer cuts otherwise, they stay what they are, and are
    put in their place when the Array is inflated.
    """

    def __init__(self, object_ids: Sequence[str]) -> None:
        self.contents: dict[str, bytes] = {}
        self._ids = object_ids
        self._at = 0
        self._landing: Landing | None = None
        self._unfilled = 0  # bytes of landings that were given up; their chunks keep them
        self._held = 0  # bytes of all landings, and of contents that have not landed
        self._elsewhere: set[str] = set()  # chunks that do not begin an ndarray, or not one that can come
        self._lock = Lock()

    def add(self, object_id: str, content: bytes) -> None:
        """An object has come; it is handled once those before it have been.

        Raises
        ------
        ObjectRefusedError
            If it, or one that came before its turn, is not taken.
        """
        try:
            with self._lock:
                self._hold(len(content))
                self.contents[object_id] = content
                del content
                while self._at < len(self._ids) and self._ids[self._at] in self.contents:
                    self._place(self._ids[self._at])
                    self._at += 1
        except ValueError as error:
            raise ObjectRefusedError(object_id, str(error)) from error

    def _hold(self, nbytes: int) -> None:
        limits.check(self._held + nbytes, "what has come of the message, and the room for the rest of its arrays, take")
        self._held += nbytes

    def _place(self, object_id: str) -> None:
        if not is_chunk(self.contents[object_id]):
            self._leave()  # the Array of the chunks before it, or what is no part of an Array
            return
        chunk = ArrayChunk.inflate(self.contents[object_id])
        received, nbytes = chunk.source is None, chunk.nbytes
        if self._landing is None and received and object_id not in self._elsewhere:
            self._landing = self._begun(chunk)
            if self._landing is None:
                self._elsewhere.add(object_id)
        if self._landing is None or self._landing.room < nbytes:
            self._leave()
            return
        if received:
            landed = Landed(head("ArrayChunk", (), nbytes))
            landed.chunk = chunk
            self._held -= len(self.contents[object_id]) - len(landed)
            self.contents[object_id] = landed
        self._landing.add(object_id, chunk)
        if self._landing.room == 0:
            self._leave()

    def _leave(self) -> None:
        """No more chunks land where the last one did."""
        if self._landing is not None:
            self._unfilled += self._landing.room
            self._landing = None

    def _begun(self, chunk: ArrayChunk) -> Landing | None:
        try:
            edge, nbytes = extent(chunk.data)
        except ValueError:
            return None  # not the beginning of an ndarray
        if edge + nbytes + self._unfilled > CHUNK * (len(self._ids) - self._at):
            return None  # more than can follow: memory is not taken on a peer's word
        self._hold(nbytes)
        return Landing(bytes(chunk.data[:edge]), nbytes)
