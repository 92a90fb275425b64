"""The object ids of chunks: one SHA-256 pass over the memory of the arrays, by all cores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..threads import cores, spread
from .wire import head, pieces, spans

if TYPE_CHECKING:
    from .._core.array import Array

BATCH = 1 << 20  # bytes for which handing work to a thread is worth its while

_Span = tuple["Array", int, int]


def ids_of_chunks(arrays: list[Array]) -> list[list[str]]:
    """The object ids of the chunks of each array, in order."""
    batches = list(_batches((array, start, stop) for array in arrays for start, stop in spans(array)))
    found = spread(_digests, batches, "flatrecord-hash") if len(batches) > 1 and cores() > 1 else map(_digests, batches)
    ids = (digest for batch in found for digest in batch)
    return [[next(ids) for _ in spans(array)] for array in arrays]


def _batches(spans: Iterable[_Span]) -> Iterator[list[_Span]]:
    batch: list[_Span] = []
    nbytes = 0
    for span in spans:
        batch.append(span)
        nbytes += span[2] - span[1]
        if nbytes >= BATCH:
            yield batch
            batch, nbytes = [], 0
    if batch:
        yield batch


def _digests(batch: list[_Span]) -> list[str]:
    return [_digest(*span) for span in batch]


def _digest(array: Array, start: int, stop: int) -> str:
    digest = hashlib.sha256(head("ArrayChunk", (), stop - start))
    for piece in pieces(array, start, stop):
        digest.update(piece)
    return digest.hexdigest()
