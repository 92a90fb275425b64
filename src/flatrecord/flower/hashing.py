"""The object ids of chunks: one SHA-256 pass over their memory, by all cores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from .._core.workers import cores
from ..threads import spread
from .wire import head

BATCH = 1 << 20  # bytes for which handing work to a thread is worth its while


class Chunk(Protocol):
    """What has an object id: bytes in one run or several."""

    def pieces(self) -> list[memoryview]:
        """Those runs, in order."""
        ...


def object_ids(chunks: Sequence[Chunk]) -> list[str]:
    """The SHA-256 of each chunk as it goes over the wire, in hexadecimal."""
    batches = list(_batches(chunk.pieces() for chunk in chunks))
    found = spread(_digests, batches, "flatrecord-hash") if len(batches) > 1 and cores() > 1 else map(_digests, batches)
    return [digest for batch in found for digest in batch]


def _batches(runs: Iterable[list[memoryview]]) -> Iterator[list[list[memoryview]]]:
    batch: list[list[memoryview]] = []
    nbytes = 0
    for pieces in runs:
        batch.append(pieces)
        nbytes += sum(map(len, pieces))
        if nbytes >= BATCH:
            yield batch
            batch, nbytes = [], 0
    if batch:
        yield batch


def _digests(batch: list[list[memoryview]]) -> list[str]:
    return [_digest(pieces) for pieces in batch]


def _digest(pieces: list[memoryview]) -> str:
    digest = hashlib.sha256(head("ArrayChunk", (), sum(map(len, pieces))))
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
