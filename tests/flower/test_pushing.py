"""What goes out: a few chunks at a time, freed as they are acknowledged; what goes wrong says which key."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from flower.peer import message, pulled, received, sent
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflatable_class_registry
from flwr.superlink.grid import http_grid
from flwr.supernode.runtime import run_clientapp

from flatrecord.flower import Array, ArrayChunk, ArrayRecord, transport
from flatrecord.flower.pulling import pull_objects
from flatrecord.flower.pushing import push_objects

MIB = 1 << 20


def model(entries: int = 4, nbytes: int = 12 * MIB) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"layer{i}": rng.integers(0, 256, nbytes, "u1") for i in range(entries)}


def push(content, function, **options):
    content.metadata.__dict__["_message_id"] = content.object_id
    with no_object_id_recompute():
        push_objects(get_all_nested_objects(content), function, **options)


def test_importing_it_lets_this_process_send_and_receive_so():
    transport.install()  # those modules were imported after ours
    assert run_clientapp.push_objects is http_grid.push_objects is push_objects
    assert http_grid.pull_objects is pull_objects
    kinds = {"Array": Array, "ArrayChunk": ArrayChunk, "ArrayRecord": ArrayRecord}
    assert {name: inflatable_class_registry[name] for name in kinds} == kinds


def test_at_most_two_chunks_are_in_memory(monkeypatch):
    alive, most = set(), 0
    lock = threading.Lock()

    class Content(bytes):
        def __del__(self):
            alive.discard(id(self))

    def deflate(chunk, deflate=ArrayChunk.deflate):
        nonlocal most
        content = Content(deflate(chunk))
        with lock:
            alive.add(id(content))
            most = max(most, len(alive))
        return content

    monkeypatch.setattr(ArrayChunk, "deflate", deflate)
    seen = {}
    push(message(arrays=ArrayRecord(model())), lambda object_id, content: (time.sleep(0.005), seen.setdefault(object_id, len(content))))
    assert sum(seen.values()) > 48 * MIB and most <= 2 + 2  # a thread makes the next before the last name of the old is gone


@pytest.mark.parametrize("nbytes, at_once", [(64, 16), (100_000, 2), (12 * MIB, 2)])
def test_small_objects_are_sent_many_at_a_time(nbytes, at_once):
    """Where the way to the other end is long; large ones two at a time, by the same two threads."""
    under_way, most, lock, threads = [], 0, threading.Lock(), set()
    reached = threading.Event()  # on a busy machine threads are late, so the first wait for the others

    def slow(object_id, data):
        nonlocal most
        with lock:
            under_way.append(len(data))
            large = [size for size in under_way if size > 1 << 16]
            most = max(most, len(large) if nbytes > 1 << 16 else len(under_way))
            threads.update([threading.get_ident()] if len(data) > 1 << 16 else [])
            if most >= at_once:
                reached.set()
        reached.wait(2)
        time.sleep(0.01)
        with lock:
            under_way.remove(len(data))

    arrays = {f"x{i}": np.random.default_rng(i).integers(0, 256, nbytes, "u1") for i in range(20)}
    push(message(arrays=ArrayRecord(arrays)), slow)
    assert most == at_once and len(threads) == (2 if nbytes > 1 << 16 else 0)


def test_only_what_is_asked_for_is_pushed():
    content = message(arrays=ArrayRecord(model()))
    everything = sent(content)
    some = set(list(everything)[::2])
    assert sent(content, object_ids_to_push=some) == {name: everything[name] for name in some}
    assert sent(content, object_ids_to_push=set()) == {}
    content.metadata.__dict__["_message_id"] = content.object_id
    with no_object_id_recompute():
        objects = get_all_nested_objects(content)
        count = len(objects)
        push_objects(objects, lambda *_: None, keep_objects=True)
        assert len(objects) == count
        push_objects(objects, lambda *_: None, max_concurrent_pushes=1)
        assert objects == {}


def test_memory_that_was_written_to_is_named():
    source = model()
    content = message(arrays=ArrayRecord(source, copy=False))
    store = {}

    def stored(object_id, data):
        if get_object_id(data) != object_id:
            raise OSError("the store does not take it")
        store[object_id] = data

    content.object_id
    source["layer2"][7 * MIB] ^= 1
    with pytest.raises(ValueError, match="key 'layer2': the array's memory was written to") as caught:
        push(content, stored)
    assert isinstance(caught.value.__cause__, OSError)
    assert list(content.content["arrays"]) == list(source)
    push(content, stored)  # with ids of what is there now
    assert received(content, store)["arrays"]["layer2"].numpy()[7 * MIB] == source["layer2"][7 * MIB]


def test_a_live_model_can_be_sent_round_after_round():
    network = torch.nn.Linear(64, 64)
    record = ArrayRecord(network.state_dict(), copy=False)
    for _ in range(3):
        with torch.no_grad():
            network.weight += 1
        contents = sent(message(arrays=record))
        assert all(get_object_id(content) == object_id for object_id, content in contents.items())
        (weight,) = [content for content in contents.values() if len(content) > 64 * 64 * 4]
        assert weight.endswith(network.weight.detach().numpy().tobytes())


def test_an_error_of_the_other_end_is_raised_and_nothing_is_lost():
    content = message(arrays=ArrayRecord(model()))
    record, pushed = content.content["arrays"], []

    def fails(object_id, data):
        if len(pushed) == 5:
            raise ConnectionResetError("the other end is gone")
        pushed.append(object_id)

    before = threading.active_count()
    with pytest.raises(ConnectionResetError, match="the other end is gone") as caught:
        push(content, fails)
    assert caught.value.__notes__[0].startswith("while sending key 'layer")
    assert len(pushed) <= 6 and len(record) == 4
    assert sent(content) == sent(message(arrays=ArrayRecord(model())))
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_consumable_record_is_freed_array_by_array():
    record = ArrayRecord(model(), keep_input=False)
    record["again"] = record["layer0"]
    record.consumable = True
    expected = sent(message(arrays=ArrayRecord(dict(record))))
    content, memory = message(arrays=record), {key: weakref.ref(array) for key, array in record.items()}
    left, seen = [], {}

    def acknowledge(object_id, data):
        seen[object_id] = data
        left.append(sum(array() is not None for array in memory.values()))

    push(content, acknowledge, max_concurrent_pushes=1)
    assert seen == expected and len(record) == 0
    assert left[0] == 5 and left[-1] == 0 and sorted(left, reverse=True) == left and set(left) >= {5, 3, 2, 1, 0}


def test_what_was_not_acknowledged_stays_in_a_consumable_record():
    record = ArrayRecord(model(), keep_input=False)
    record.consumable = True
    expected = {key: array.numpy(copy=True) for key, array in record.items()}
    seen = []

    def fails(object_id, data):
        if len(seen) == 7:  # two arrays of three chunks and a small object each have gone
            raise ConnectionResetError
        seen.append(object_id)

    with pytest.raises(ConnectionResetError):
        push(message(arrays=record), fails, max_concurrent_pushes=1)
    assert list(record) == ["layer2", "layer3"] or list(record) == ["layer1", "layer2", "layer3"]
    assert all((array.numpy() == expected[key]).all() for key, array in record.items())


def test_a_consumable_record_that_the_other_end_has_already():
    record = ArrayRecord(model(), keep_input=False)
    record.consumable = True
    push(message(arrays=record), lambda *_: None, object_ids_to_push=set())
    assert len(record) == 0


def test_a_consumable_record_stays_if_nothing_was_acknowledged():
    record = ArrayRecord(model(), keep_input=False)
    record.consumable = True

    def fails(object_id, data):
        raise ConnectionResetError

    content = message(arrays=record)
    with pytest.raises(ConnectionResetError):
        push(content, fails, object_ids_to_push={content.object_id})  # the store has all chunks already
    assert len(record) == 4


def test_a_record_that_was_copied_and_changed():
    record = ArrayRecord([np.zeros(3)])
    with no_object_id_recompute():
        before = record.object_id
        other = record.copy()
        other["0"] = Array(np.ones(3))
        assert other.object_id != before == record.object_id


def test_equal_arrays_of_a_live_model():
    """At first they are one object on the wire; each must have an id of its own later."""
    x, y = np.zeros(1000), np.zeros(1000)
    record = ArrayRecord({"x": x, "y": y}, copy=False)
    sent(message(arrays=record))
    x[:], y[:] = 1, 2
    content = message(arrays=record)
    back = received(content, sent(content))["arrays"]
    assert (back["x"].numpy() == 1).all() and (back["y"].numpy() == 2).all()


def test_several_threads_send_one_borrowed_record():
    record = ArrayRecord(model(4, 2 * MIB), copy=False)
    errors = []

    def send():
        try:
            for _ in range(5):
                sent(message(arrays=record))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("started", [0, 1, 3])
def test_where_few_threads_can_be_started(started, monkeypatch):
    count = 0

    def start(thread, start=threading.Thread.start):
        nonlocal count
        count += 1
        if count > started:
            raise RuntimeError("can't start new thread")
        start(thread)

    content = message(arrays=ArrayRecord(model()))
    content.object_id
    monkeypatch.setattr(threading.Thread, "start", start)
    contents = {}
    push(content, contents.__setitem__)
    count = 0
    assert pulled(content, contents) == content.content


def test_a_failed_push_keeps_nothing_alive():
    record = ArrayRecord(model(), keep_input=False)
    gone = weakref.ref(record["layer0"])

    def fails(object_id, data):
        raise ConnectionResetError

    gc.disable()
    try:
        with pytest.raises(ConnectionResetError):
            push(message(arrays=record), fails)
        del record
        deadline = time.monotonic() + 10
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.01)  # threads end
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("most", [0, 1])
def test_the_fewest_at_a_time(most):
    content = message(arrays=ArrayRecord(model(2, 6 * MIB)))
    contents = sent(content, max_concurrent_pushes=most)
    assert pulled(content, contents, max_concurrent_pulls=most) == content.content


def test_the_ids_are_computed_once(monkeypatch):
    from flatrecord.flower import hashing

    hashed = []

    def digest(pieces, digest=hashing._digest):
        hashed.append(sum(map(len, pieces)))
        return digest(pieces)

    monkeypatch.setattr(hashing, "_digest", digest)
    record = ArrayRecord(model())
    content = message(arrays=record)
    total = sum(array.nbytes for array in record.values())
    for _ in range(2):
        sent(content)
        assert sum(hashed) == total  # and not again
    record["new"] = Array(np.zeros(9))
    sent(message(arrays=record))
    assert sum(hashed) == total + record["new"].nbytes
    hashed.clear()
    back = received(content, sent(content))["arrays"]
    assert sum(hashed) == total + record["new"].nbytes  # to see whether anything was corrupted
    sent(message(arrays=back))
    assert sum(hashed) == total + record["new"].nbytes  # so that the ids are known when it is sent on
