"""SHA-256 of payloads: taken while they are written, and compared with a record's later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..threads import helpers, spread
from .outgoing import Outgoing
from .streams import Send

if TYPE_CHECKING:
    from _hashlib import HASH

PLACEHOLDER = "0" * 64  # as long as a digest
PIECE = 1 << 20  # bytes between two looks for an interrupt


class Hashing:
    """Takes digests of what is sent, in a thread beside the sending. A context manager."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._pool = helpers(1, "flatrecord-hash")
        self._hashes: dict[str, HASH] = {}
        self._pending: list[tuple[HASH, memoryview]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()

    def seen(self, entry: Outgoing, part: memoryview) -> None:
        """Note what the next batch holds."""
        if entry.name not in self._hashes:
            self._hashes[entry.name] = hashlib.sha256()
        self._pending.append((self._hashes[entry.name], part))

    def send(self, batch: list[memoryview]) -> None:
        """Send a batch, and hash it meanwhile."""
        pending, self._pending = self._pending, []
        hashed = self._pool.submit(_update, pending)
        try:
            self._send(batch)
        finally:
            hashed.result()

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """What was found, in hexadecimal, in the order of `names`; an empty payload was not seen."""
        return {name: self._hashes.get(name, hashlib.sha256()).hexdigest() for name in names}


def _update(pending: list[tuple[HASH, memoryview]]) -> None:
    while pending:
        digest, part = pending.pop(0)
        digest.update(part)
        del part


def digest_of(entry: Outgoing) -> str:
    """The digest of an entry's payload, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in entry.pieces():
        for start in range(0, len(piece), PIECE):
            digest.update(piece[start : start + PIECE])
    return digest.hexdigest()


def digests_of(entries: Iterable[Outgoing]) -> Iterable[tuple[str, str]]:
    """Names and digests, in order; several are taken at once."""
    entries = list(entries)
    yield from zip((entry.name for entry in entries), spread(digest_of, entries, "flatrecord-hash"), strict=True)
