"""Object ids by several threads: those of one thread, whatever happens to one of these."""

import hashlib
import signal

import numpy as np
import pytest

from flatrecord.flower import Array, hashing
from flatrecord.flower.chunks import ArrayChunk
from flatrecord.flower.hashing import object_ids
from flatrecord.flower.wire import head, spans

MIB = 1 << 20


@pytest.fixture
def chunks():
    """Chunks of a large and of many small arrays."""
    arrays = [Array(np.random.default_rng(1).integers(0, 256, 33 * MIB, np.uint8))]
    arrays += [Array(np.full(i, i, np.float32)) for i in range(1, 400)]
    return [ArrayChunk.of(array, *span) for array in arrays for span in spans(array)]


@pytest.fixture(params=[1, 2, 5])
def threads(request, monkeypatch):
    monkeypatch.setattr("flatrecord.threads.cores", lambda: request.param)
    monkeypatch.setattr(hashing, "cores", lambda: request.param)
    return request.param


def test_the_ids_of_one_thread(chunks, threads):
    data = [b"".join(chunk.pieces()) for chunk in chunks]
    assert len(data) > 400
    assert object_ids(chunks) == [hashlib.sha256(head("ArrayChunk", (), len(d)) + d).hexdigest() for d in data]


def test_no_memory_in_one_of_the_threads(chunks, threads, monkeypatch):
    expected = object_ids(chunks)
    digest = hashing._digest

    def fail(pieces):
        if sum(map(len, pieces)) == 128 + 4 * 333:
            raise MemoryError("no room in a thread")
        return digest(pieces)

    monkeypatch.setattr(hashing, "_digest", fail)
    with pytest.raises(MemoryError, match="no room in a thread"):
        object_ids(chunks)
    monkeypatch.undo()
    assert object_ids(chunks) == expected


def test_ctrl_c_while_threads_hash(threads):
    many = [ArrayChunk.of(array, *span) for array in [Array(np.zeros(256 * MIB, np.uint8))] for span in spans(array)] * 8
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            object_ids(many)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(object_ids(many[:3])) == 3
