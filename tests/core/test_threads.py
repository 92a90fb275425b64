"""Records read and changed from several threads at once, and copies that let other threads run."""

import itertools
import os
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flatrecord import Array, ParametersRecord

THREADS, TURNS = 8, 300


@pytest.fixture(autouse=True)
def switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*works):
    """Run each callable in a thread of its own, all at once, and raise what they raise."""
    barrier = threading.Barrier(len(works))

    def run(work):
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(run, work) for work in works]]


def test_reading_from_many_threads():
    record = ParametersRecord({str(i): np.full(100, i) for i in range(50)})
    total, data = record.count_bytes(), {key: array.data for key, array in record.items()}

    def read():
        for _ in range(TURNS // 10):
            assert record.count_bytes() == total
            assert {key: array.data for key, array in record.items()} == data
            assert [array.numpy()[0] for array in record.values()] == list(range(50))
            assert record == record.copy()

    together(*[read] * THREADS)


def test_each_entry_is_popped_by_one_thread():
    for _ in range(20):
        record = ParametersRecord({str(i): np.full(4, i) for i in range(THREADS * 20)})

        def pop():
            popped = []
            while True:
                try:
                    popped.append(record.popitem()[0])
                except KeyError:
                    return popped

        popped = together(*[pop] * THREADS)
        assert sorted(itertools.chain(*popped), key=int) == [str(i) for i in range(THREADS * 20)]


def test_each_array_is_handed_out_to_one_thread():
    for _ in range(20):
        record = ParametersRecord({str(i): np.full(4, i) for i in range(100)})
        lists = together(*[lambda: record.to_numpy_ndarrays(keep_input=False)] * THREADS)
        assert sorted(int(array[0]) for arrays in lists for array in arrays) == list(range(100))
        assert len(record) == 0


def test_writers_and_readers():
    record = ParametersRecord({"shared": Array(np.zeros(4))})

    def write(name):
        for i in range(TURNS):
            record[name] = Array(np.full(4, i))
            record["shared"] = Array(np.full(4, i))
            record.update({f"{name}.x": record[name], f"{name}.y": record[name]})
            assert record.pop(name).numpy()[0] == i

    def read():
        for _ in range(TURNS):
            values = record["shared"].numpy()
            assert (values == values[0]).all()
            snapshot = record.copy()
            for key in snapshot:
                if key.endswith(".x"):
                    assert f"{key[:-1]}y" in snapshot  # an update is seen whole or not at all

    together(*[lambda name=f"t{i}": write(name) for i in range(4)], read, read)
    assert sorted(record) == sorted(["shared", *(f"t{i}.{end}" for i in range(4) for end in "xy")])


def test_two_threads_take_from_one_dict():
    for _ in range(50):
        source = {str(i): np.full(4, i) for i in range(200)}
        records = [ParametersRecord(), ParametersRecord()]
        errors = []

        def take(record):
            try:
                record.__init__(source)
            except KeyError as error:  # the other thread was first with this key
                errors.append(error)

        together(*[lambda record=record: take(record) for record in records])
        found = [*records[0], *records[1], *source]
        assert sorted(found, key=int) == [str(i) for i in range(200)]


def put_and_take(record, thread, stop, kept):
    """Do to a record whatever there is, and keep in `kept` the numbers of the arrays that this thread has put in, and that it got out."""
    choose, put, got = random.Random(thread), kept[0], kept[1]
    while not stop.is_set():
        number = thread * 1_000_000 + len(put)
        action = choose.randrange(9)
        if action < 3:
            put.append(number)
            record[str(number)] = Array(np.full(3, number))
        elif action == 3:
            put.append(number)
            record.update({str(number): Array(np.full(3, number))})
        elif action == 4:
            put.append(number)
            assert record.setdefault(str(number), Array(np.full(3, number))).numpy()[0] == number
        elif action == 5:
            try:
                key, array = record.popitem()
            except KeyError:
                continue
            assert array.numpy()[0] == int(key)
            got.append(int(key))
        elif action == 6:
            array = record.pop(choose.choice(list(record.keys()) or [""]), None)
            if array is not None:
                got.append(int(array.numpy()[0]))
        elif action == 7:
            got.extend(int(array[0]) for array in record.to_numpy_ndarrays(keep_input=False))
        else:
            seen = record.copy()
            assert seen.count_bytes() == sum(array.nbytes + len(key) for key, array in seen.items())
            assert all(array.numpy()[2] == int(key) for key, array in seen.items())
            assert record.count_memory() >= 0 and record.ties() == [] and record != {"": None}
            del seen


def test_whatever_there_is_at_once_and_nothing_is_lost_or_twice():
    record, stop = ParametersRecord(), threading.Event()
    kept = [([], []) for _ in range(THREADS)]
    timer = threading.Timer(3, stop.set)
    timer.start()
    together(*[lambda i=i: put_and_take(record, i, stop, kept[i]) for i in range(THREADS)])
    timer.join()
    put, got = ([number for numbers in kept for number in numbers[i]] for i in (0, 1))
    left = [int(array.numpy()[0]) for array in record.values()]
    assert len(put) > 1000 and len(got) > 100
    assert sorted(got + left) == sorted(put)


def test_the_same_in_a_storm_of_signals():
    # The handler, too, puts in and takes out, in the middle of whatever the main thread is at.
    record, stop = ParametersRecord(), threading.Event()
    kept = [([], []) for _ in range(3)]
    handled, own, numbers = [], ([], []), itertools.count(9_000_000)

    def handler(*_):
        handled.append(None)
        number = next(numbers)  # at once, as a signal can interrupt its own handler
        own[0].append(number)
        record[str(number)] = Array(np.full(3, number))
        if len(handled) % 50 == 0:
            own[1].extend(int(array[0]) for array in record.to_numpy_ndarrays(keep_input=False))

    before = signal.signal(signal.SIGALRM, handler)
    worker = threading.Thread(target=put_and_take, args=(record, 1, stop, kept[1]))
    worker.start()
    timer = threading.Timer(3, stop.set)
    timer.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        put_and_take(record, 2, stop, kept[2])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    worker.join()
    timer.join()
    put, got = ([number for numbers in [*kept, own] for number in numbers[i]] for i in (0, 1))
    assert len(handled) > 100
    assert sorted(got + [int(array.numpy()[0]) for array in record.values()]) == sorted(put)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns where there are threads of any kind
@pytest.mark.memory  # a child of a process with threads cannot use AddressSanitizer's allocator
def test_a_child_that_is_forked_off_in_the_middle_has_a_whole_record():
    record, stop = ParametersRecord({"held": np.full(1000, 7)}), threading.Event()
    worker = threading.Thread(target=put_and_take, args=(ParametersRecord(), 1, stop, ([], [])))
    worker.start()
    for _ in range(30):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                copy = ParametersRecord(record, keep_input=True)
                arrays = record.to_numpy_ndarrays(keep_input=False)
                status = int(not (copy["held"].numpy() == 7).all() or arrays[0].sum() != 7000 or len(record))
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    worker.join()


@pytest.mark.parametrize("strides", [slice(None), slice(None, None, -1)])
def test_the_copy_runs_without_the_gil(strides):
    sys.setswitchinterval(0.005)
    source = {"x": np.ones(256 << 20, np.uint8)[strides]}
    worker = threading.Thread(target=ParametersRecord, args=(source, True))
    worker.start()
    turns = 0
    while worker.is_alive():
        turns += 1
    # With the GIL held throughout, this loop could run only before and after the copy.
    assert turns > 1000
