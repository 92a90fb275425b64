"""To another process, through a socket."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterable
from typing import Any

import flatrecord
import flatrecord.safetensors as ours

from .contender import Contender, Path, Place
from .formats import STREAMED, Arrays, Format

HEAD = 8  # bytes that say how long the piece is that follows; nothing follows the last


class Writer(io.RawIOBase):
    """A stream that goes to a socket in pieces, as in an HTTP body whose length is not known."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with memoryview(data).cast("B") as view:
            if len(view):
                self._peer.sendall(len(view).to_bytes(HEAD, "little"))
                self._peer.sendall(view)
            return len(view)

    def finish(self) -> None:
        self._peer.sendall(bytes(HEAD))


class Reader(io.RawIOBase):
    """The other end of a `Writer`."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer, self._left, self._over = peer, 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left and not self._over:
            self._left = int.from_bytes(self._peer.recv(HEAD, socket.MSG_WAITALL), "little")
            self._over = not self._left
        with memoryview(buffer).cast("B") as view:
            count = self._peer.recv_into(view[: self._left]) if self._left else 0
        self._left -= count
        return count

    def finish(self) -> None:
        """Read to the end, of which a library need not see anything."""
        rest = bytearray(1 << 16)
        while self.readinto(rest):
            pass


def sender(dump: Callable[[Arrays, Any], object]) -> Callable[[Arrays, Place], None]:
    """Let a library write to the socket; the length of the whole is sent last, so that nobody has to know it."""

    def send(arrays: Arrays, place: Place) -> None:
        stream = Writer(place.peer)
        dump(arrays, stream)
        stream.finish()

    return send


def receiver(found: Format) -> Callable[[Place], Iterable[Any]]:
    """Let a library read from the socket. Those who need all bytes at once are told how many there are at most."""

    def receive(place: Place) -> Iterable[Any]:
        stream = Reader(place.peer)
        values = found.load(stream, place.size.nbytes + place.size.entries * 1024 + (1 << 16))
        stream.finish()
        return values

    return receive


def send_ours(arrays: Arrays, place: Place) -> None:
    flatrecord.ParametersRecord(arrays).write(place.peer, keep_input=False)


def receive_ours(place: Place) -> Iterable[Any]:
    return ours.read(place.peer).to_numpy_ndarrays()


PIPE = Path(
    "pipe",
    "A model goes through a socket to another process, which is measured, too.",
    (
        Contender("flatrecord", send_ours, receive=receive_ours, bound=1.02),
        *(Contender(name, sender(found.dump), receive=receiver(found), needs=found.needs) for name, found in STREAMED.items()),
    ),
    limit=("sendmsg and recv_into",),
    slack=8 << 20,
)
