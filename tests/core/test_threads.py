"""Records read and changed from several threads at once, and copies that let other threads run."""

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
        assert sorted(sum(popped, []), key=int) == [str(i) for i in range(THREADS * 20)]


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
