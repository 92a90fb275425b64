"""A stand-in for a SuperNode: it gives a ``flwr-clientapp`` a model to train, takes the trained one, and holds neither.

It speaks Flower's Runtime API, protobuf over HTTP. What the chunks of the model hold is made when they are asked for; only
their object ids are known beforehand. What is pushed is checked as Flower's own store does, and thrown away.
"""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import ml_dtypes  # noqa: F401  NumPy then knows bfloat16 by name
import numpy as np
from flwr.app import Context, MetricRecord, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK
from flwr.common.serde import context_to_proto
from flwr.proto import fab_pb2, run_pb2
from flwr.proto.log_pb2 import PushLogsRequest, PushLogsResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    Message,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PullTaskInputRequest,
    PullTaskInputResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
    PushTaskOutputRequest,
    PushTaskOutputResponse,
    SendTaskHeartbeatRequest,
    SendTaskHeartbeatResponse,
)
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import validate_object_content

RUN, NODE, SERVER, TASK = 1, 2, 3, 4  # ids
TTL = 24 * 3600.0  # seconds
COLUMNS = 1024  # elements in a row of each array
PIECE = 1 << 20  # bytes
APP = "flower_app"
PROJECT = f"""
[project]
name = "flatrecord-profiling"
version = "1.0.0"
[tool.flwr.app]
publisher = "flatrecord"
[tool.flwr.app.components]
serverapp = "{APP}:app"
clientapp = "{APP}:app"
[tool.flwr.app.config]
records = "stock"
"""


class Object(NamedTuple):
    """An object of Flower's store: its id, what it refers to, and what makes its content."""

    object_id: str
    children: tuple[Object, ...]
    content: Callable[[], bytes]

    def tree(self) -> ObjectTree:
        """The ids of this object and of all below it, as Flower sends them."""
        return ObjectTree(object_id=self.object_id, children=[child.tree() for child in self.children])

    def all(self) -> Iterator[Object]:
        """This object and all below it."""
        yield self
        for child in self.children:
            yield from child.all()


def composed(kind: str, body: bytes, children: tuple[Object, ...] = ()) -> Object:
    """An object with this body."""
    children = tuple({child.object_id: child for child in children}.values())
    content = head(kind, len(body), children) + body
    return Object(hashlib.sha256(content).hexdigest(), children, lambda: content)


def head(kind: str, nbytes: int, children: tuple[Object, ...] = ()) -> bytes:
    """What comes before the body of an object."""
    return f"{kind} {','.join(child.object_id for child in children)} {nbytes}\0".encode()


class Model:
    """A model of some arrays of equal size, before and after training, made piece by piece.

    Its elements are random numbers from 1 to 2 that repeat after 1 MiB, but each MiB begins one element further on, so that no
    two chunks are equal.

    Parameters
    ----------
    arrays : int
        Number of arrays.
    nbytes : int
        Bytes of all, of which those are left out that do not make a row of each array.
    dtype : str
        ``float32`` or ``bfloat16``.
    """

    def __init__(self, arrays: int, nbytes: int, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        rows = nbytes // arrays // (COLUMNS * self.dtype.itemsize)
        if not rows:
            raise ValueError(f"{nbytes} bytes do not make {arrays} arrays of {COLUMNS} {dtype}")
        self.arrays, self.shape = arrays, (rows, COLUMNS)
        self.array_nbytes = rows * COLUMNS * self.dtype.itemsize
        self.nbytes = arrays * self.array_nbytes
        tile = (np.random.default_rng(20).random(PIECE // self.dtype.itemsize, np.float32) + 1).astype(self.dtype)
        before, after = np.concatenate((tile, tile)), np.concatenate((tile, tile)) * self.dtype.type(2)
        self._tiles = {trained: array.view(np.uint8).data for trained, array in ((False, before), (True, after))}
        preamble = io.BytesIO()
        description = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(preamble, description)
        self._preamble = preamble.getvalue()

    def record(self, trained: bool, watch: Callable[[int], None] = lambda nbytes: None) -> Object:
        """The ArrayRecord that holds the model, as a list of arrays gives it; `watch` is told how many bytes were hashed."""
        starts = range(0, len(self._preamble) + self.array_nbytes, CHUNK)
        spans = [(i, start) for i in range(self.arrays) for start in starts]
        chunks: list[list[Object]] = [[] for _ in range(self.arrays)]
        with ThreadPoolExecutor() as pool:
            for (i, start), chunk in zip(spans, pool.map(partial(self._chunk, trained), *zip(*spans, strict=True)), strict=True):
                chunks[i].append(chunk)
                watch(i * self.array_nbytes + start)
        arrays = [self._array(tuple(found)) for found in chunks]
        names = {str(i): array.object_id for i, array in enumerate(arrays)}
        return composed("ArrayRecord", json.dumps(names).encode(), tuple(arrays))

    def _array(self, chunks: tuple[Object, ...]) -> Object:
        order = [*range(len(chunks))]
        body = {"dtype": str(self.dtype), "shape": self.shape, "stype": "numpy.ndarray", "arraychunk_ids": order}
        return composed("Array", json.dumps(body).encode(), chunks)

    def _chunk(self, trained: bool, i: int, start: int) -> Object:
        digest = hashlib.sha256()
        for piece in self._pieces(trained, i, start):
            digest.update(piece)
        return Object(digest.hexdigest(), (), lambda: b"".join(self._pieces(trained, i, start)))

    def _pieces(self, trained: bool, i: int, start: int) -> Iterator[bytes | memoryview]:
        """The content of the chunk of an array whose serialized form begins with byte `start`."""
        stop = min(start + CHUNK, len(self._preamble) + self.array_nbytes)
        yield head("ArrayChunk", stop - start)
        if start == 0:
            yield self._preamble
        before = i * self.array_nbytes - len(self._preamble)
        at, end = before + max(start, len(self._preamble)), before + stop
        while at < end:
            piece, offset = divmod(at, PIECE)
            nbytes = min(PIECE - offset, end - at)
            begin = piece * self.dtype.itemsize % PIECE + offset
            yield self._tiles[trained][begin : begin + nbytes]
            at += nbytes


class Seen(NamedTuple):
    """What was noted of the ClientApp when it had reached a step: the time, its peak in bytes, and what was counted."""

    time: float
    peak: int
    copied: int = 0
    hashed: int = 0


class StandIn:
    """The server, for one round of one ClientApp, from ``with`` to the end of its block.

    Parameters
    ----------
    message : Object
        The message that it hands out: see `task`.
    expected : str
        The object id of the ArrayRecord that must come back.
    records : str
        ``stock`` or ``flat``: the run config of the app.
    look : callable
        Called at each step to see what the process has taken so far.
    latency : float
        Seconds by which each answer comes later.

    Attributes
    ----------
    address : str
        Where it listens.
    seen : dict of str to Seen
        What was seen at each step that was reached, in order.
    pulled, pushed : int
        Bytes of objects that went out and came in.
    equal : bool
        Whether the reply has the model that was expected, bit for bit.
    complete : bool
        Whether every object of the reply has come, and the task has ended well.
    errors : list of str
        What the client did wrong, and what it said went wrong.
    """

    def __init__(self, message: Object, expected: str, records: str, look: Callable[[], Seen], latency: float = 0.0) -> None:
        self.objects = {found.object_id: found for found in message.all()}
        self.message, self.expected, self.records, self._look, self.latency = message, expected, records, look, latency
        self.seen: dict[str, Seen] = {}
        self.pulled = self.pushed = 0
        self.equal = self.complete = False
        self.errors: list[str] = []
        self._awaited: set[str] = set()
        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), type("Handler", (Handler,), {"standin": self}))
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # ------------------------------------------------------------------------------------ what is asked for

    def send_task_heartbeat(self, request: SendTaskHeartbeatRequest) -> SendTaskHeartbeatResponse:
        return SendTaskHeartbeatResponse(success=True)

    def push_logs(self, request: PushLogsRequest) -> PushLogsResponse:
        return PushLogsResponse()

    def pull_task_input(self, request: PullTaskInputRequest) -> PullTaskInputResponse:
        source = Path(__file__).with_name(f"{APP}.py").read_bytes()
        content, _ = build_fab_from_files({"pyproject.toml": PROJECT.encode(), f"{APP}.py": source})
        fab = fab_pb2.Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)
        run = run_pb2.Run(run_id=RUN, fab_id="flatrecord/flatrecord-profiling", fab_version="1.0.0", fab_hash=fab.hash_str)
        context = Context(RUN, NODE, {}, RecordDict(), {"records": self.records})
        return PullTaskInputResponse(context=context_to_proto(context), run=run, fab=fab, task_id=TASK)

    def pull_messages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:
        self._reached("asked")
        # Flower takes the message itself from its objects.
        bare = Message(metadata=metadata(self.message.object_id))
        return PullAppMessagesResponse(messages_list=[bare], message_object_trees=[self.message.tree()])

    def pull_object(self, request: PullObjectRequest) -> PullObjectResponse:
        found = self.objects.get(request.object_id)
        if found is None:
            return PullObjectResponse(object_found=False)
        content = found.content()
        with self._lock:
            self.pulled += len(content)
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def confirm_message_received(self, request: ConfirmMessageReceivedRequest) -> ConfirmMessageReceivedResponse:
        self._reached("pulled")
        return ConfirmMessageReceivedResponse()

    # ------------------------------------------------------------------------------------ what is sent

    def push_messages(self, request: PushAppMessagesRequest) -> PushAppMessagesResponse:
        (message,), (tree,) = request.messages_list, request.message_object_trees
        if message.HasField("error"):
            self.errors.append(message.error.reason)
        else:
            self._reached("reply ready")
            records = [record.object_id for content in tree.children for record in content.children]
            self.equal = self.expected in records
        self._awaited = {node.object_id for node in iterate_object_tree(tree)}
        return PushAppMessagesResponse(message_ids=[tree.object_id], objects_to_push=self._awaited, session_id="session")

    def push_object(self, request: PushObjectRequest) -> PushObjectResponse:
        content = request.object_content
        if hashlib.sha256(content).hexdigest() != request.object_id:
            raise ValueError(f"the content of object {request.object_id} is not what its id says")
        validate_object_content(content)
        if content.startswith(b"MetricRecord "):
            self._told(MetricRecord.inflate(content))
        with self._lock:
            self._awaited.remove(request.object_id)
            self.pushed += len(content)
        return PushObjectResponse(stored=True)

    def push_task_output(self, request: PushTaskOutputRequest) -> PushTaskOutputResponse:
        self._reached("pushed")
        self.complete = not self._awaited and not self.errors and request.sub_status == "completed"
        return PushTaskOutputResponse()

    # ------------------------------------------------------------------------------------ what was seen

    def _reached(self, step: str) -> None:
        self.seen[step] = self._look()

    def _told(self, metrics: MetricRecord) -> None:
        """The app's own notes are in its reply."""
        for name, value in metrics.items():
            step, what = name.split(": ")
            found: dict[str, Any] = {what: value}
            self.seen[step] = self.seen.get(step, Seen(0, 0))._replace(**found)


def task(record: Object) -> Object:
    """The message that asks to train the model of an ArrayRecord."""
    content = composed("RecordDict", json.dumps({"model": record.object_id}).encode(), (record,))
    body = Message(metadata=metadata("")).SerializeToString(deterministic=True)
    return composed("Message", body, (content,))


def metadata(message_id: str) -> Metadata:
    return Metadata(
        run_id=RUN,
        message_id=message_id,
        src_node_id=SERVER,
        dst_node_id=NODE,
        created_at=time.time(),
        ttl=TTL,
        message_type="train",
    )


class Server(ThreadingHTTPServer):
    """A thread a connection; an error is the stand-in's to report, not to be printed."""

    daemon_threads = True

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        pass  # the client has gone


class Handler(BaseHTTPRequestHandler):
    """HTTP 1.1 with keep-alive: ``POST /v1/runtime/pull-object`` becomes a call of ``StandIn.pull_object``."""

    standin: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the client to acknowledge its headers

    REQUESTS: ClassVar[dict[str, Any]] = {
        "send-task-heartbeat": SendTaskHeartbeatRequest,
        "push-logs": PushLogsRequest,
        "pull-task-input": PullTaskInputRequest,
        "pull-messages": PullAppMessagesRequest,
        "pull-object": PullObjectRequest,
        "confirm-message-received": ConfirmMessageReceivedRequest,
        "push-messages": PushAppMessagesRequest,
        "push-object": PushObjectRequest,
        "push-task-output": PushTaskOutputRequest,
    }

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        name = self.path.removeprefix("/v1/runtime/")
        try:
            request = self.REQUESTS[name].FromString(body)
            answer = getattr(self.standin, name.replace("-", "_"))(request).SerializeToString()
        except Exception as error:  # Flower's client raises when it is told, and the program reports it
            self.standin.errors.append(f"{name}: {error!r}")
            self.send_error(500, explain=repr(error))
            return
        time.sleep(self.standin.latency)
        self.send_response(200)
        self.send_header("content-type", "application/protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass
