"""Peak heap while a model goes into a file or a stream and comes back: what it costs over the model itself.

Each bound is proved able to fail by a control that duplicates. A mapping of a file counts in full with memray, so
mapped loads are measured by VmHWM, in test_resident_files.
"""

import io
import pickle

import numpy as np
import pytest
import safetensors.numpy
from memory.sizes import GIB, KIB, MIB

from flatrecord import ParametersRecord
from flatrecord.safetensors import load, save, write
from flatrecord.testing import measure_peak

pytestmark = pytest.mark.memory

ENTRIES = (1, 64, 20_000)
BATCH = 4 * MIB  # the most that is copied at a time, where an array is not in the format's order


def ndarrays(entries: int, total: int) -> dict[str, np.ndarray]:
    return {f"model.layers.{i}.weight": np.empty(total // entries // 4, np.float32) for i in range(entries)}


def flat(entries: int) -> int:
    """The bound on what may be allocated beside the model: the header, and what is known of each entry."""
    return 256 * KIB + entries * 3 * KIB


def record_of(entries: int, total: int) -> ParametersRecord:
    return ParametersRecord(ndarrays(entries, total))


@pytest.fixture(scope="module")
def nowhere():
    with open("/dev/null", "wb", buffering=0) as stream:
        yield stream


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("keep_input", [True, False])
def test_four_gibibytes_on_a_stream(entries, keep_input, nowhere):
    record = record_of(entries, 4 * GIB)
    with measure_peak() as measured:
        count = record.write(nowhere, keep_input=keep_input)
    assert measured.nbytes <= flat(entries) + MIB  # small pieces are joined
    assert 4 * GIB - 4 * entries <= count <= 4 * GIB + flat(entries) and len(record) == (entries if keep_input else 0)


def test_four_gibibytes_in_another_order_on_a_stream(nowhere):
    array = np.empty((32 * KIB, 32 * KIB), np.float32)
    for other in (np.asfortranarray(array[:8192]), array[::2], array[:, ::-1], np.broadcast_to(array[:1], array.shape), array.view(">f4")):
        with measure_peak() as measured:
            write({"x": other}, nowhere)
        assert measured.nbytes <= 3 * BATCH + flat(1)


def test_the_bound_on_other_orders_fails_where_all_is_copied(nowhere):
    array = np.empty((32 * KIB, 16 * KIB), np.float32)[::2]
    with measure_peak() as measured:
        write({"x": np.ascontiguousarray(array)}, nowhere)
    assert measured.nbytes >= array.nbytes > 3 * BATCH + flat(1)


@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("checksum", [True, False])
def test_two_gibibytes_in_a_file(keep_input, checksum, tmp_path):
    record = record_of(64, 2 * GIB)
    with measure_peak() as measured:
        record.save(tmp_path / "x", keep_input=keep_input, checksum=checksum)
    assert measured.nbytes <= flat(64)
    assert (tmp_path / "x").stat().st_size >= 2 * GIB


@pytest.mark.parametrize("entries", [1, 64, 20_000])
def test_reading_a_file_takes_the_model_once(entries, tmp_path):
    total = 2 * GIB if entries == 1 else GIB
    size = save(record_of(entries, total), tmp_path / "x")
    with measure_peak() as measured:
        record = load(tmp_path / "x", mmap=False)
    assert len(record) == entries
    assert size - flat(entries) <= measured.nbytes <= size + 2 * flat(entries)


def test_the_bound_on_reading_fails_for_another_library(tmp_path):
    size = save(record_of(64, GIB // 4), tmp_path / "x")
    with measure_peak() as measured:
        safetensors.numpy.load((tmp_path / "x").read_bytes())
    assert measured.nbytes >= 2 * size - flat(64) > size + 2 * flat(64)


@pytest.mark.parametrize("entries", ENTRIES)
def test_reading_a_stream_takes_the_model_once(entries, tmp_path):
    size = save(record_of(entries, GIB), tmp_path / "x")
    with open(tmp_path / "x", "rb", buffering=0) as stream, measure_peak() as measured:
        record = ParametersRecord.read(stream)
    assert len(record) == entries
    assert size - flat(entries) <= measured.nbytes <= size + 2 * flat(entries) + 2 * MIB


# ------------------------------------------------------------------------------------------- pickle


@pytest.mark.parametrize("entries", [1, 64, 20_000])
def test_pickle_out_of_band_copies_nothing(entries):
    record = record_of(entries, 4 * GIB)
    buffers: list[pickle.PickleBuffer] = []
    with measure_peak() as measured:
        data = pickle.dumps(record, 5, buffer_callback=buffers.append)
        again = pickle.loads(data, buffers=buffers)
    assert measured.nbytes <= 64 * KIB + 4 * entries * KIB
    assert len(again) == entries == len(buffers)


def test_pickle_to_a_file_copies_nothing_either(nowhere):
    record = record_of(64, 4 * GIB)
    with measure_peak() as measured:
        pickle.dump(record, nowhere, 5)
    assert measured.nbytes <= flat(64)


def test_the_bound_on_pickle_fails_in_band():
    record = record_of(64, GIB // 4)
    with measure_peak() as measured:
        pickle.dump(record, io.BytesIO(), 5)
    assert measured.nbytes >= GIB // 4 > 64 * KIB + 4 * 64 * KIB
