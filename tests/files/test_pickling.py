"""Records move through what other programs build on pickle: shared memory, process pools, joblib."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.shared_memory import SharedMemory

import joblib
import numpy as np
import pytest

from flatrecord import ParametersRecord
from flatrecord.safetensors import load, save


def example() -> ParametersRecord:
    return ParametersRecord({"a": np.arange(100_000), "b": np.asfortranarray(np.ones((3, 4))), "c": np.array("text")})


@pytest.fixture(params=["own", "mapped"])
def record(request, tmp_path):
    if request.param == "own":
        return example()
    save(example(), tmp_path / "x")
    return load(tmp_path / "x")


def total(record: ParametersRecord) -> int:
    return int(record["a"].numpy().sum())


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(protocol, record):
    assert pickle.loads(pickle.dumps(record, protocol)) == record


def test_out_of_band_into_shared_memory(record):
    buffers = []
    data = pickle.dumps(record, 5, buffer_callback=buffers.append)
    assert len(data) < 2000 and len(buffers) == 3
    # As Ray and Dask do it: all payloads in one block that other processes map.
    places, end = [], 0
    for buffer in buffers:
        places.append((end, len(buffer.raw())))
        end += len(buffer.raw())
    memory = SharedMemory(create=True, size=end)
    try:
        for (start, size), buffer in zip(places, buffers, strict=True):
            memory.buf[start : start + size] = buffer.raw()
        views = [memory.buf[start : start + size].toreadonly() for start, size in places]
        again = pickle.loads(data, buffers=views)
        assert again == record and again["a"].ownership == "borrowed"
        pointer = np.frombuffer(memory.buf, "u1").ctypes.data
        assert again["a"].numpy().ctypes.data == pointer + places[0][0]  # nothing was copied
        del again, views, buffer
    finally:
        memory.close()
        memory.unlink()


def test_process_pools(record):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(total, record).result() == total(record)
        assert pool.submit(example).result() == example()


def test_joblib(record, tmp_path):
    joblib.dump(record, tmp_path / "dumped")
    assert joblib.load(tmp_path / "dumped") == record
    assert joblib.Parallel(2)(joblib.delayed(total)(record) for _ in range(3)) == [total(record)] * 3


def test_copies(record):
    assert copy.copy(record)["a"] is record["a"]
    other = copy.deepcopy(record)
    assert other == record and other["a"].ownership == "snapshot"
    assert other["a"].numpy().ctypes.data != record["a"].numpy().ctypes.data
