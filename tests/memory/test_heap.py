"""Peak heap while a 4 GiB model goes into a record and out: what it costs over the model itself.

Each bound is proved able to fail by a control that duplicates.
"""

import numpy as np
import pytest
from memory.sizes import GIB, KIB, MIB, beginnings

from flatrecord import Array, ArrayRecord, ParametersRecord
from flatrecord.testing import measure_peak

pytestmark = pytest.mark.memory

MODEL = 4 * GIB
ENTRIES = (1, 64, 20_000)


def ndarrays(entries: int, total: int = MODEL) -> dict[str, np.ndarray]:
    return {f"model.layers.{i}.weight": np.empty(total // entries // 4, np.float32) for i in range(entries)}


def arrays(entries: int, total: int = MODEL) -> dict[str, Array]:
    return {key: Array(value, copy=False) for key, value in ndarrays(entries, total).items()}


def nbytes(source) -> int:
    return sum(value.nbytes for value in source.values())


def flat(entries: int) -> int:
    """The bound on what may be allocated beside the model."""
    return 64 * KIB + entries * KIB


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("model", [ndarrays, arrays])
def test_a_dict_is_taken_whole(model, entries):
    source = model(entries)
    with measure_peak() as measured:
        record = ParametersRecord(source)
    assert measured.nbytes <= flat(entries)
    assert len(record) == entries and not source


@pytest.mark.parametrize("entries", ENTRIES)
def test_the_bound_on_taking_fails_where_the_model_is_held(entries):
    source = ndarrays(entries, GIB)
    held = list(source.values())
    with measure_peak() as measured:
        ParametersRecord(source)
    assert measured.nbytes >= GIB > flat(entries)
    assert len(held) == entries


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("model", [ndarrays, arrays])
def test_keep_input_makes_exactly_one_duplicate(model, entries):
    source = model(entries, GIB)
    total = nbytes(source)
    with measure_peak() as measured:
        ParametersRecord(source, keep_input=True)
    assert total - entries * KIB <= measured.nbytes <= total + beginnings(entries, total) + flat(entries)


@pytest.mark.parametrize("entries", ENTRIES)
def test_the_bound_on_one_duplicate_fails_for_two(entries):
    source = ndarrays(entries, GIB)
    total = nbytes(source)
    with measure_peak() as measured:
        ParametersRecord({key: value.copy() for key, value in source.items()}, keep_input=True)
    assert measured.nbytes >= 2 * total > total + beginnings(entries, total) + flat(entries)


def test_one_duplicate_of_four_gibibytes():
    source = ndarrays(1)
    with measure_peak() as measured:
        record = ArrayRecord(source)
    assert MODEL <= measured.nbytes <= MODEL + flat(1)
    assert record["model.layers.0.weight"].ownership == "snapshot"


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("keep_input", [False, True])
@pytest.mark.parametrize("model", [ndarrays, arrays])
def test_borrowing_duplicates_nothing(model, keep_input, entries):
    source = model(entries)
    with measure_peak() as measured:
        ParametersRecord(source, keep_input, copy=False)
    assert measured.nbytes <= flat(entries)


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("keep_input", [False, True])
def test_to_numpy_ndarrays_duplicates_nothing(keep_input, entries):
    record = ParametersRecord(ndarrays(entries))
    with measure_peak() as measured:
        out = record.to_numpy_ndarrays(keep_input=keep_input)
    assert measured.nbytes <= flat(entries)
    assert len(out) == entries and all(array.flags.writeable is not keep_input for array in out)


@pytest.mark.parametrize("entries", ENTRIES)
def test_the_bound_on_the_way_out_fails_where_arrays_are_in_use(entries):
    record = ParametersRecord(ndarrays(entries, GIB))
    views = [array.numpy() for array in record.values()]
    with measure_peak() as measured:
        record.to_numpy_ndarrays(keep_input=False)
    assert measured.nbytes >= nbytes(dict(enumerate(views))) > flat(entries)


def test_strided_arrays_cost_one_entry_at_a_time():
    source = {str(i): np.empty((MIB, 16), np.uint8)[:, ::-1] for i in range(64)}
    with measure_peak() as measured:
        ParametersRecord(source)
    # memray does not see the model's own memory, made before, being given back: what is counted is
    # each snapshot, and none twice.
    assert GIB <= measured.nbytes <= GIB + beginnings(64, GIB) + flat(64)


@pytest.mark.parametrize("work", ["count_bytes", "repr", "segments", "chunks", "numpy", "equal", "copy", "views", "update"])
def test_nothing_joins_the_segments(work):
    record = ParametersRecord(ndarrays(4, 256 * MIB))
    array = record["model.layers.0.weight"]
    works = {
        "count_bytes": record.count_bytes,
        "repr": lambda: repr(record),
        "segments": lambda: [array.segments() for array in record.values()],
        "chunks": lambda: [len(chunk) for array in record.values() for chunk in array.chunks()],
        "numpy": lambda: [array.numpy() for array in record.values()],
        "equal": lambda: record == record.copy() and array == Array(array.numpy(), copy=False),
        "copy": record.copy,
        "views": lambda: [np.asarray(array) for array in record.values()] + [memoryview(array)],
        "update": lambda: ParametersRecord().update(record),
    }
    with measure_peak() as measured:
        works[work]()
    assert measured.nbytes <= 256 * KIB


def test_data_joins_and_is_the_control_for_that():
    array = ParametersRecord(ndarrays(1, 256 * MIB)).popitem()[1]
    with measure_peak() as measured:
        data = array.data
    assert measured.nbytes >= len(data) > 256 * KIB
