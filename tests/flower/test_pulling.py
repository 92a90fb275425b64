"""What comes in piece by piece: chunks land as they arrive, in whatever order, and their contents are freed."""

import itertools
import random
import threading
import time

import numpy as np
import pytest
from flower.peer import message, pulled, received, sent
from flwr.app import ConfigRecord
from flwr.supercore.inflatable.inflatable_object import get_object_id, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError

from flatrecord._core.parts import extent
from flatrecord.flower import Array, ArrayChunk, ArrayRecord
from flatrecord.flower.chunks import Landed
from flatrecord.flower.pulling import Arrivals, pull_and_inflate_object_from_tree, pull_objects
from flatrecord.flower.wire import CHUNK, head

MIB = 1 << 20


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "large": rng.integers(0, 256, 23 * MIB, "u1"),
        "zeros": np.zeros(16 * MIB, "u1"),  # one chunk several times
        "zeros and more": np.concatenate([np.zeros(16 * MIB, "u1"), np.ones(9, "u1")]),
        "zeros again": np.zeros(16 * MIB, "u1"),  # the same Array
        "small": np.arange(7.0),
        "fortran": np.asfortranarray(rng.standard_normal((1500, 1000))),
        "edge": rng.integers(0, 256, CHUNK - 128, "u1"),
        "empty": np.zeros((0, 3)),
        "scalar": np.array(1),
    }


def content():
    return message(arrays=ArrayRecord(arrays()), other=ArrayRecord({"x": np.arange(MIB)}), config=ConfigRecord({"a": 1}))


def test_what_is_pulled_is_what_is_received():
    whole = content()
    contents = sent(whole)
    found = pulled(whole, contents)
    assert found == received(whole, contents) == whole.content
    assert found["arrays"].ties() == []
    for taken, array in zip(found["arrays"].to_numpy_ndarrays(keep_input=False), arrays().values(), strict=True):
        assert taken.dtype == array.dtype and (taken == array).all()


@pytest.mark.parametrize("seed", range(8))
def test_in_any_order(seed):
    whole, rng = content(), random.Random(seed)
    contents = sent(whole)

    def pull(object_id):
        time.sleep(rng.random() * 0.004)
        return contents[object_id]

    assert pulled(whole, contents, pull, max_concurrent_pulls=8) == whole.content
    ids = list(contents)
    rng.shuffle(ids)
    arrivals = Arrivals([tree.object_id for tree in iterate_object_tree(get_object_tree(whole))])
    for object_id in ids:
        arrivals.add(object_id, contents[object_id])
    assert received(whole, arrivals.contents) == whole.content


def test_contents_are_freed_as_they_land():
    whole = message(arrays=ArrayRecord({f"layer{i}": np.random.default_rng(i).integers(0, 256, 12 * MIB, "u1") for i in range(4)}))
    contents = {name: bytes(found) for name, found in sent(whole).items()}
    alive, most, lock = 0, 0, threading.Lock()

    class Content(bytes):
        def __del__(self):
            nonlocal alive
            with lock:
                alive -= 1

    def pull(object_id):
        nonlocal alive, most
        if not contents[object_id].startswith(b"ArrayChunk"):
            return contents[object_id]
        with lock:
            alive += 1
            most = max(most, alive)
        time.sleep(0.002)
        return Content(contents[object_id])

    assert pulled(whole, contents, pull) == whole.content
    assert alive == 0 and most <= 6  # of twelve: one in each thread, and those that wait for one that a busy machine holds up


@pytest.mark.parametrize("nbytes, at_once", [(64, 8), (100_000, 2)])
def test_small_objects_are_pulled_many_at_a_time(nbytes, at_once):
    """Where the way to the other end is long; large ones are not, though their Arrays' own objects are small."""
    whole = message(arrays=ArrayRecord({f"x{i}": np.random.default_rng(i).integers(0, 256, nbytes, "u1") for i in range(60)}))
    contents = sent(whole)
    under_way = most = 0
    lock = threading.Lock()

    def pull(object_id):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)
        with lock:
            under_way -= 1
        return contents[object_id]

    assert pulled(whole, contents, pull) == whole.content
    assert most == at_once


def test_landed_memory_is_handed_over():
    whole = message(arrays=ArrayRecord({"x": np.random.default_rng(0).standard_normal(2 * MIB), "y": np.ones(3)}))
    record = pulled(whole, sent(whole))["arrays"]
    addresses = [array.numpy(copy=False).ctypes.data for array in record.values()]
    assert [array.ctypes.data for array in record.to_numpy_ndarrays(keep_input=False)] == addresses


def test_what_is_not_available_yet_is_asked_for_again():
    whole = content()
    contents = sent(whole)
    missing = dict.fromkeys(contents, 2)

    def pull(object_id):
        missing[object_id] -= 1
        if missing[object_id] > 0:
            raise ObjectUnavailableError(object_id)
        return contents[object_id]

    assert pulled(whole, contents, pull, initial_backoff=0.001, backoff_cap=0.002) == whole.content


@pytest.mark.parametrize("options", [{"max_tries_per_object": 3}, {"max_time": 0.01, "max_tries_per_object": None}])
def test_what_never_becomes_available_is_given_up(options):
    def pull(object_id):
        raise ObjectUnavailableError(object_id)

    with pytest.raises(ObjectPullError, match="timeout or retry limit reached"):
        pull_objects(["a" * 64, "b" * 64], pull, initial_backoff=0.001, backoff_cap=0.002, **options)


def test_an_error_ends_all_threads():
    whole = content()
    contents = sent(whole)
    before, count = threading.active_count(), 0

    def pull(object_id):
        nonlocal count
        count += 1
        if count == 5:
            raise ConnectionResetError("the other end is gone")
        return contents[object_id]

    with pytest.raises(ConnectionResetError, match="the other end is gone"):
        pulled(whole, contents, pull)
    assert count <= 6
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_corrupted_is_refused():
    whole = content()
    contents = sent(whole)
    for name in contents:
        broken = contents | {name: contents[name][:-1] + bytes([contents[name][-1] ^ 1])}
        with pytest.raises(ValueError, match=f"an object was corrupted on its way: {name} came with the SHA-256"):
            pulled(whole, broken)


def test_another_type_is_refused():
    whole = content()
    with pytest.raises(TypeError, match="expected an object of type ConfigRecord, got Message"):
        pull_and_inflate_object_from_tree(get_object_tree(whole), sent(whole).__getitem__, lambda object_id: None, return_type=ConfigRecord)


def chunk_of(data: bytes) -> bytes:
    return head("ArrayChunk", (), len(data)) + data


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 20, 1 << 20), (10 * MIB,)])
def test_memory_is_not_taken_on_a_peers_word(shape):
    """A header that claims more than can follow."""
    header = Array(np.zeros(1, "u1")).segments()[0].tobytes().replace(b"(1,), }" + b" " * 30, (f"{shape}, }}" + " " * 37)[:37].encode())
    assert extent(header) == (len(header), int(np.prod(shape)))
    first = chunk_of(header + b"x" * (CHUNK - len(header)))
    arrivals = Arrivals([get_object_id(first)])
    arrivals.add(get_object_id(first), first)
    assert not isinstance(arrivals.contents[get_object_id(first)], Landed)


def test_chunks_that_do_not_fit_stay_what_they_are():
    array = np.random.default_rng(0).integers(0, 256, 11 * MIB, "u1")
    data = Array(array).data
    for cuts in ([0, 100, 5 * MIB, len(data)], [0, 4 * MIB, 10 * MIB, len(data)], [0, len(data)], [0, 5 * MIB, 6 * MIB, len(data)]):
        chunks = [chunk_of(data[start:stop]) for start, stop in itertools.pairwise(cuts)]
        names = [get_object_id(chunk) for chunk in chunks]
        arrivals = Arrivals([*names, "f" * 64])
        for name, chunk in zip(names, chunks, strict=True):
            arrivals.add(name, chunk)
        inflated = {name: ArrayChunk.inflate(arrivals.contents[name]) for name in names}
        body = b'{"dtype": "uint8", "shape": [%d], "stype": "numpy.ndarray", "arraychunk_ids": %s}' % (
            array.size,
            str(list(range(len(names)))).encode(),
        )
        back = Array.inflate(head("Array", names, len(body)) + body, inflated)
        assert (back.numpy() == array).all() and back.object_id == Array(array).object_id


def test_an_array_that_says_otherwise_than_its_chunks():
    """The chunks have landed as the header in them says; what counts is what the Array says."""
    array = Array(np.arange(MIB))
    arrivals = Arrivals(list(array.children))
    for name, chunk in array.slice_array():
        arrivals.add(name, chunk.deflate())
    chunks = {name: ArrayChunk.inflate(arrivals.contents[name]) for name in array.children}
    assert all(isinstance(arrivals.contents[name], Landed) for name in chunks)
    back = Array.inflate(array.deflate().replace(b"[1048576]", b"[1048577]"), chunks)
    assert back.shape == (MIB + 1,) and back.data == array.data
    with pytest.raises(ValueError, match="shape is"):
        back.numpy()
