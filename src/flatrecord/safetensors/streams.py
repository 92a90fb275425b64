"""Bytes to and from anything that has a stream of them: files, pipes, sockets, HTTP bodies.

Short reads and writes are carried on. Where a stream is non-blocking and not ready, it is waited for if it has a
file descriptor.
"""

from __future__ import annotations

import io
import select
import socket
from collections.abc import Callable
from errno import EAGAIN
from functools import partial
from typing import Any, Protocol, TypeAlias

from ..threads import SIGNALS_EVERY
from .vectored import advance, first_of, write_to

PIECE = 1 << 20  # bytes asked for or sent in one call
# What the ssl module raises, by name, as it need not be loaded: TLS may have to read before it can write. What is waited for.
TLS_WAITS = {"SSLWantReadError": "read", "SSLWantWriteError": "write"}

Send = Callable[[list[memoryview]], None]


class Writable(Protocol):
    """A stream that bytes are written to."""

    def write(self, data: memoryview, /) -> int | None:
        """Write what there is room for, and say how many bytes that were; None if there is no room."""
        ...


class ReadableInto(Protocol):
    """A stream that reads into memory that it is given."""

    def readinto(self, view: memoryview, /) -> int | None:
        """Read at most what fits, and say how many bytes that were; None if there is nothing yet."""
        ...


class Readable(Protocol):
    """A stream that makes bytes of what it reads."""

    def read(self, size: int, /) -> bytes | bytearray | memoryview | None:
        """Read at most `size` bytes; None if there is nothing yet."""
        ...


Target: TypeAlias = socket.socket | Writable
Source: TypeAlias = socket.socket | ReadableInto | Readable


def file_sender(descriptor: int) -> Send:
    """Vectored writes to a file descriptor that blocks."""
    return lambda batch: _send_all(batch, lambda views: write_to(descriptor, views))


def stream_sender(stream: Any) -> Send:
    """What sends a batch of memoryviews to `stream`: vectored to a bare socket, else by its ``write``.

    Raises
    ------
    TypeError
        If it is no stream of bytes that can be written to.
    """
    if isinstance(stream, socket.socket) and not hasattr(stream, "write"):  # TLS has, and no sendmsg
        send = stream.sendmsg if hasattr(stream, "sendmsg") else lambda views: stream.send(first_of(views))
        return lambda batch: _send_all(batch, lambda views: _patiently(stream, "write", send, views))
    if isinstance(stream, io.TextIOBase) or not hasattr(stream, "write"):
        raise TypeError(f"a record is written to a socket or a binary stream, got {type(stream).__name__}")

    def write(views: list[memoryview]) -> int:
        first = first_of(views)
        count: int = _patiently(stream, "write", stream.write, first)
        if count > len(first):
            raise OSError(f"the stream's write() returned {count} for {len(first)} bytes")
        return count

    return lambda batch: _send_all(batch, write)


def _send_all(batch: list[memoryview], send: Callable[[list[memoryview]], int]) -> None:
    """Call `send` until all is sent; it says how many bytes it has sent of what it got."""
    while batch:
        count = send(batch)
        if count <= 0:
            raise OSError(f"{count} bytes were written, with {sum(map(len, batch))} left")
        advance(batch, count)


def stream_filler(stream: Any) -> Callable[[memoryview], int]:
    """What reads from `stream` into a memoryview until that is full or the stream ends; it says how much it has read.

    Raises
    ------
    TypeError
        If it is no stream of bytes that can be read from.
    """
    if isinstance(stream, io.TextIOBase):
        raise TypeError(f"a record is read from a binary stream, got {type(stream).__name__}")
    if hasattr(stream, "readinto"):
        into = stream.readinto
    elif hasattr(stream, "recv_into"):
        into = stream.recv_into
    elif hasattr(stream, "read"):
        into = partial(_copied, stream)
    else:
        raise TypeError(f"a record is read from a socket or a binary stream, got {type(stream).__name__}")

    def fill(view: memoryview) -> int:
        done = 0
        while done < len(view):
            # Released afterwards, so that the stream cannot write to the record later.
            with view[done : done + PIECE] as piece:
                count = _patiently(stream, "read", into, piece)
                if not 0 <= count <= len(piece):
                    raise OSError(f"the stream said that it read {count} bytes into {len(piece)}")
            if count == 0:
                break
            done += count
        return done

    return fill


def _copied(stream: Any, view: memoryview) -> int | None:
    data = stream.read(len(view))
    if data is None:
        return None
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"a record is read from a binary stream, but its read() returned {type(data).__name__}")
    if len(data) > len(view):
        raise OSError(f"the stream's read() returned {len(data)} bytes, and was asked for {len(view)}")
    view[: len(data)] = data
    return len(data)


def flush(stream: Any) -> None:
    """Flush `stream` if it can be flushed."""
    if hasattr(stream, "flush"):
        _patiently(stream, "write", lambda _: stream.flush() or 0, b"")


def _patiently(stream: Any, event: str, call: Callable[[Any], int | None], argument: Any) -> int:
    """`call(argument)`, as soon as the stream is ready for the `event`, which is "read" or "write"."""
    while True:
        wanted = event
        try:
            count = call(argument)
            if count is None and event == "write" and not isinstance(stream, io.RawIOBase):
                return len(argument)  # a write() of somebody's own, which says nothing; only raw streams mean "not ready"
        except BlockingIOError as error:
            # What a buffer took all the same. Where another stream lies in between, it counts other bytes.
            buffered = isinstance(stream, (io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair))
            count = error.characters_written or None if buffered else None
        except OSError as error:
            if type(error).__name__ not in TLS_WAITS:
                raise
            count, wanted = None, TLS_WAITS[type(error).__name__]
        if count is not None:
            return count
        try:
            descriptor = stream.fileno()
        except (AttributeError, OSError):
            way = "written to" if event == "write" else "read from"
            raise BlockingIOError(EAGAIN, f"the stream is not ready to be {way}, and has no fileno() to wait for it") from None
        _wait(descriptor, wanted)


def _wait(descriptor: int, event: str) -> None:
    """Wait until something can be read from or written to a descriptor.

    Raises
    ------
    BlockingIOError
        If the system cannot wait for it.
    """
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN if event == "read" else select.POLLOUT)
        poll.poll()
        return
    readers, writers = ([descriptor], []) if event == "read" else ([], [descriptor])
    try:
        # With a limit, as Windows does not wake it for a Ctrl-C.
        while not any(select.select(readers, writers, [], SIGNALS_EVERY)):
            pass
    except (OSError, ValueError) as error:
        raise BlockingIOError(EAGAIN, f"the stream is not ready, and this system does not wait for one of its kind: {error}") from None
