"""Out of a record as bytes, piece by piece, and back: as Flower's objects, and as what other libraries write to a stream."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

import flatrecord
import flatrecord.safetensors as ours

from .contender import Contender, Path, Place, model
from .files import OURS, saved_by, saved_by_ours
from .formats import STREAMED, Format
from .memory import flower_record, of_arrays


class Sink(io.RawIOBase):
    """A stream that throws away what it gets."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with memoryview(data) as view:
            return view.nbytes


class Objects:
    """Flower's objects in a file, and where each is: the other end, which keeps them out of the process that is measured."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb", buffering=0)
        self._where: dict[str, tuple[int, int]] = {}
        self._at, self._lock = 0, Lock()
        self._path = path

    def push(self, object_id: str, content: bytes) -> None:
        """An object has come."""
        with self._lock:
            self._where[object_id] = self._at, len(content)
            self._at += self._file.write(content)

    def finish(self, message: Any) -> None:
        """Note what the objects make together."""
        from flwr.supercore.inflatable.inflatable_object import get_object_tree

        self._file.close()
        tree = base64.b64encode(get_object_tree(message).SerializeToString()).decode()
        with open(self._path + ".json", "w") as file:
            json.dump({"tree": tree, "objects": self._where}, file)


def message_of(record: Any) -> Any:
    """A Flower message with this record."""
    from flwr.app import Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 2, 3
    return Message(RecordDict({"model": record}), 7, "train")


def pushed(record: Any, push: Callable[..., None], each: Callable[[str, bytes], None]) -> Any:
    """Send a message with a record as Flower's ClientApp does: hashed, then an object after the other; returns the message."""
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute

    message = message_of(record)
    message.metadata.__dict__["_message_id"] = message.object_id
    with no_object_id_recompute():
        push(get_all_nested_objects(message), each)
    return message


def our_push() -> Callable[..., None]:
    from flatrecord.flower.pushing import push_objects

    return push_objects


def stock_push() -> Callable[..., None]:
    from flwr.supercore.inflatable.inflatable_utils import push_objects

    return push_objects


def our_record(place: Place) -> Any:
    from flatrecord.flower import ArrayRecord

    return ArrayRecord(model(place.size), keep_input=False)


def stock_record(place: Place) -> Any:
    return flower_record(model(place.size))


def thrown_away(object_id: str, content: bytes) -> None:
    """A peer that stores nothing, at the other end of a network that takes no time."""


class Network:
    """The way to such a peer at 1 Gbit/s, by which one object goes after the other."""

    PACE = 1e9 / 8  # bytes a second

    def __init__(self) -> None:
        self._lock = Lock()

    def push(self, object_id: str, content: bytes) -> None:
        with self._lock:
            time.sleep(len(content) / self.PACE)


def stored(place: Place) -> None:
    """Put the objects of stock Flower's record where another process finds them."""
    objects = Objects(place.path)
    objects.finish(pushed(stock_record(place), stock_push(), objects.push))


def found(place: Place) -> tuple[Any, Callable[[str], bytes]]:
    """The tree of the objects that were stored, and what gets one of them."""
    from flwr.proto.message_pb2 import ObjectTree

    with open(place.path + ".json") as file:
        noted = json.load(file)
    tree, objects = ObjectTree.FromString(base64.b64decode(noted["tree"])), noted["objects"]
    source = open(place.path, "rb", buffering=0)  # closed with what reads from it

    def pull(object_id: str) -> bytes:
        at, nbytes = objects[object_id]
        return os.pread(source.fileno(), nbytes, at)

    return tree, pull


def ours_pulled(prepared: tuple[Any, Callable[[str], bytes]], place: Place) -> Any:
    import flatrecord.flower  # noqa: F401  which makes what is inflated ours
    from flatrecord.flower.pulling import pull_and_inflate_object_from_tree

    tree, pull = prepared
    return pull_and_inflate_object_from_tree(tree, pull, lambda object_id: None).content["model"]


def stock_pulled(prepared: tuple[Any, Callable[[str], bytes]], place: Place) -> Any:
    from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree

    tree, pull = prepared
    return pull_and_inflate_object_from_tree(tree, pull, lambda object_id: None).content["model"]


def dumping(name: str, dump: Callable[[Any, Any], object], needs: tuple[str, ...]) -> Contender:
    return Contender(name, lambda arrays, place: dump(arrays, Sink()), needs=needs)


class Stream(io.RawIOBase):
    """A file that comes as from a network: once, from the beginning to the end."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._file.readinto(buffer)


def loading(name: str, format: Format) -> Contender:
    def work(stream: Stream, place: Place) -> Iterable[Any]:
        return format.load(stream, os.path.getsize(place.path))

    return Contender(
        name,
        work,
        lambda values, place: values,
        lambda place: Stream(place.path),
        saved_by(name),
        name,
        needs=format.needs,
    )


WIRE_OUT = Path(
    "wire out",
    "A record becomes bytes, which are thrown away piece by piece: at once, or as a network of 1 Gbit/s would take them. Flower's "
    "objects are hashed, which is the limit; other formats are not, and may be faster than it.",
    (
        Contender(
            "flatrecord, Flower's objects",
            lambda record, place: pushed(record, our_push(), thrown_away),
            prepare=our_record,
            needs=("flwr",),
            bound=1.02,
        ),
        Contender(
            "flwr, Flower's objects",
            lambda record, place: pushed(record, stock_push(), thrown_away),
            prepare=stock_record,
            needs=("flwr",),
        ),
        Contender(
            "flatrecord, the same at 1 Gbit/s",
            lambda record, place: pushed(record, our_push(), Network().push),
            prepare=our_record,
            needs=("flwr",),
            bound=1.02,
            paced=True,
        ),
        Contender(
            "flwr, the same at 1 Gbit/s",
            lambda record, place: pushed(record, stock_push(), Network().push),
            prepare=stock_record,
            needs=("flwr",),
            paced=True,
        ),
        Contender(
            "flatrecord, write",
            lambda record, place: record.write(Sink()),
            prepare=lambda place: flatrecord.ParametersRecord(model(place.size)),
            bound=1.02,
        ),
        *(dumping(name, format.dump, format.needs) for name, format in STREAMED.items()),
    ),
    limit=("SHA-256, all threads",),
    slack=48 << 20,
    eager=False,  # or each buffer of some MiB would be faulted in anew, in which others would lose more time than we
)
WIRE_IN = Path(
    "wire in",
    "Bytes that come piece by piece become arrays of their own. The limit is to hash and to copy them once. Of all these, only "
    "flatrecord compares Flower's objects with their ids; those who do not hash may be faster than the limit.",
    (
        Contender(
            "flatrecord, Flower's objects",
            ours_pulled,
            of_arrays,
            found,
            stored,
            "Flower's objects",
            needs=("flwr",),
            bound=1.02,
        ),
        Contender(
            "flwr, Flower's objects",
            stock_pulled,
            of_arrays,
            found,
            stored,
            "Flower's objects",
            needs=("flwr",),
        ),
        Contender(
            "flatrecord, read",
            lambda stream, place: ours.read(stream),
            of_arrays,
            lambda place: Stream(place.path),
            saved_by_ours,
            OURS,
            bound=1.02,
        ),
        *(loading(name, format) for name, format in STREAMED.items()),
    ),
    limit=("SHA-256, all threads", "memcpy, fresh huge pages, all threads"),
    slack=48 << 20,
    eager=False,  # or each buffer of some MiB would be faulted in anew, in which others would lose more time than we
    prepares="start",
    makes_model=True,
)
