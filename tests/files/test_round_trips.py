"""What goes into a file or a stream comes out again: dtypes, layouts, order, and the other library's files."""

import io

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from arrays import PADDED, filled, npy
from files.written import WAYS, back, entry, file_of, header_of

import flatrecord.safetensors
from flatrecord import Array, ArrayRecord, ParametersRecord, array_from_numpy
from flatrecord.safetensors import inspect, load, read, save
from profiling.models import real_weights


def check_same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Whether all is equal but the byte order of what the format has a dtype for."""
    assert found.shape == wanted.shape
    if found.dtype != wanted.dtype:
        assert found.dtype == wanted.dtype.newbyteorder("<") and not found.dtype.hasobject
        wanted = wanted.astype(found.dtype)
    assert found.tobytes() == wanted.tobytes()
    assert not found.flags.writeable


@pytest.mark.parametrize("way", WAYS)
def test_every_dtype_in_every_layout(way, dtype, layout, tmp_path):
    array = layout(dtype)
    source = {"before": np.ones(3, "f4"), "x": array, "after": np.ones(5, "f8")}
    kept = array.copy()
    for given in (source, ParametersRecord(source, keep_input=True)):
        record = back(way, given, tmp_path / f"{type(given).__name__}.safetensors")
        assert list(record) == ["before", "x", "after"]
        check_same(record["x"].numpy(), kept)
        if dtype.itemsize:  # of nothing, an ndarray does not say in which order it is
            assert record["x"].data == npy(record["x"].numpy())
        assert record["before"].numpy().tolist() == [1] * 3 and record["after"].numpy().tolist() == [1] * 5


@pytest.mark.parametrize("way", WAYS)
def test_a_record_comes_back_equal(way, tmp_path):
    # But for the order of axes and bytes, which the format fixes.
    record = ParametersRecord(
        {
            "listed": array_from_numpy(np.arange(6).reshape(2, 3)),
            "scalar": np.array(3.5),
            "empty": np.zeros((0, 4), "i2"),
            "brain": np.arange(5).astype(ml_dtypes.bfloat16),
            "fortran complex": np.asfortranarray(np.arange(6, dtype="c16").reshape(2, 3)),
            "text": np.array(["ä", "bcd"]),
            "named": np.array([(1, 2.5)], [("größe", "i4"), ("名", "f8")]),
        }
    )
    record["received"] = Array("float32", [3], "numpy.ndarray", npy(np.arange(3, dtype="f4")))
    record["received dates"] = Array("datetime64[D]", [2], "numpy.ndarray", npy(np.zeros(2, "M8[D]")))
    record["of one's own"] = Array("anything", [2, 7], "my.codec", b"\x00\x01any bytes")
    record["nothing"] = Array("", [], "", b"")
    again = back(way, record, tmp_path / "x.safetensors")
    assert list(again) == list(record)
    for name in record:
        if name == "received":  # NumPy's own header stays behind: the payload is what it was
            assert np.array_equal(again[name].numpy(), record[name].numpy())
        else:
            assert again[name] == record[name]
    assert again["fortran complex"].numpy().flags.f_contiguous


def test_received_bytes_are_equal_after_a_file_too(tmp_path):
    array = Array("float32", [3], "numpy.ndarray", npy(np.arange(3, dtype="f4")))
    save({"x": array}, tmp_path / "x")
    assert load(tmp_path / "x")["x"].data == array.data


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_record(way, tmp_path):
    assert len(back(way, ParametersRecord(), tmp_path / "x")) == 0


def test_padded_structures(tmp_path):
    array = filled((3,), PADDED)
    save({"x": array}, tmp_path / "x")
    assert np.array_equal(load(tmp_path / "x")["x"].numpy(), array)


# ------------------------------------------------------------------------------------ block by block


@pytest.mark.parametrize(
    "make",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a[::-1],
        lambda a: a[:, ::-2],
        lambda a: a.astype(">f4"),
        lambda a: a.T,
        lambda a: np.broadcast_to(a[:1], (9, *a.shape[1:])),
        lambda a: np.broadcast_to(a[:1, :1], (9, a.shape[1])),
        lambda a: a.reshape(-1)[::2],
        lambda a: a.reshape(7, -1, 10).transpose(2, 0, 1),
    ],
)
def test_large_arrays_in_other_orders(make, tmp_path):
    array = make(np.arange(7 * 1_000_000, dtype="f4").reshape(7, -1))
    for given in ({"x": array}, ParametersRecord({"x": array}, keep_input=True)):
        path = tmp_path / type(given).__name__
        save(given, path)
        found = load(path)["x"].numpy()
        assert found.dtype == "<f4" and np.array_equal(found, array)


def test_an_element_longer_than_a_block(tmp_path):
    array = np.zeros(4, "V5000000")[::2]
    array[1] = b"\x01" * 5_000_000
    save({"x": array}, tmp_path / "x")
    assert np.array_equal(load(tmp_path / "x")["x"].numpy(), array)


# --------------------------------------------------------------------------------- order and alignment


def test_whole_payloads_lie_in_order_and_aligned(tmp_path):
    names = ["z", "a", "m", "ä"]
    save(
        {name: np.full((16, 4), i, dtype) for i, (name, dtype) in enumerate(zip(names, ["f4", "f8", "i2", "u1"], strict=True))},
        tmp_path / "x",
    )
    header, begin = header_of(tmp_path / "x")
    assert list(header) == names and begin % 64 == 0
    assert sorted(names, key=lambda name: header[name]["data_offsets"]) == names
    assert all((begin + header[name]["data_offsets"][0]) % 64 == 0 for name in names)
    assert all(array.numpy().ctypes.data % 64 == 0 for array in load(tmp_path / "x").values())


def test_odd_payloads_come_last_in_the_file_and_stay_in_place_in_the_record(tmp_path):
    names = ["count", "weight", "bias", "flags", "more"]
    arrays = [np.array(3), np.ones((16, 4), "f4"), np.ones(10, "f4"), np.ones(3, "?"), np.ones(64)]
    save(dict(zip(names, arrays, strict=True)), tmp_path / "x")
    header, _ = header_of(tmp_path / "x")
    assert list(header) == names == list(load(tmp_path / "x"))
    assert sorted(names, key=lambda name: header[name]["data_offsets"]) == ["weight", "more", "count", "bias", "flags"]
    for array in load(tmp_path / "x").values():
        assert array.numpy().flags.aligned
        assert array.numpy().nbytes % 64 or array.numpy().ctypes.data % 64 == 0


def test_odd_payloads_keep_their_order_where_all_are_aligned(tmp_path):
    save({name: np.ones(size, "f4") for name, size in [("z", 3), ("a", 6), ("m", 1)]}, tmp_path / "x")
    header, _ = header_of(tmp_path / "x")
    assert [header[name]["data_offsets"] for name in "zam"] == [[0, 12], [12, 36], [36, 40]]


def test_the_elements_of_any_mixture_are_aligned(tmp_path):
    random = np.random.default_rng(4)
    for turn in range(50):
        arrays = {str(i): np.zeros(random.integers(0, 9), random.choice(["u1", "f2", "f4", "f8", "c8"])) for i in range(12)}
        save(arrays, tmp_path / str(turn))
        record = load(tmp_path / str(turn))
        assert list(record) == list(arrays) and all(array.numpy().flags.aligned for array in record.values())


def test_the_order_of_the_header_counts(tmp_path):
    data = file_of({"late": entry(offsets=(4, 8)), "early": entry(offsets=(0, 4))}, b"aaaabbbb")
    (tmp_path / "x").write_bytes(data)
    for record in (load(tmp_path / "x"), load(tmp_path / "x", mmap=False), read(io.BytesIO(data))):
        assert [(name, array.numpy().tobytes()) for name, array in record.items()] == [("late", b"bbbb"), ("early", b"aaaa")]


# ------------------------------------------------------------------------------------ the other library

KNOWN_TO_NUMPY = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8"]


def test_the_other_library_reads_ours_as_numpy(tmp_path):
    source = {name: np.arange(24).astype(name).reshape(2, 3, 4) for name in KNOWN_TO_NUMPY}
    source |= {"F": np.asfortranarray(source["f4"]), "scalar": np.array(2.5), "empty": np.zeros((3, 0), "f4")}
    save(source, tmp_path / "x", {"who": "wé"})
    found = safetensors.numpy.load_file(tmp_path / "x")
    assert found.keys() == source.keys()
    for name, array in source.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
    with safetensors.safe_open(tmp_path / "x", "np") as file:
        assert file.metadata() == {"who": "wé"}


@pytest.mark.parametrize("way", WAYS)
def test_a_real_model(way, tmp_path):
    with safetensors.safe_open(real_weights(), "np") as file:
        metadata = file.metadata()
    reference = safetensors.numpy.load_file(real_weights())
    record = load(real_weights())
    assert inspect(real_weights()).metadata == (metadata or {})
    assert list(record) == list(inspect(real_weights()).entries)
    again = back(way, record, tmp_path / "x.safetensors", metadata=metadata)
    for found in (dict(zip(record, record.to_numpy_ndarrays(), strict=True)), dict(zip(again, again.to_numpy_ndarrays(), strict=True))):
        assert found.keys() == reference.keys() and len(found) == 104
        assert all(np.array_equal(found[name], array) for name, array in reference.items())
    if way != "stream":
        theirs = safetensors.numpy.load_file(tmp_path / "x.safetensors")
        assert all(np.array_equal(theirs[name], array) for name, array in reference.items())


# ---------------------------------------------------------------------------------------- classes, keys


def test_methods_and_classes(tmp_path):
    record = ArrayRecord({"x": np.arange(3)})
    assert record.save(tmp_path / "x") == (tmp_path / "x").stat().st_size
    assert type(ArrayRecord.load(tmp_path / "x")) is ArrayRecord and ArrayRecord.load(str(tmp_path / "x"), False) == record
    assert type(ParametersRecord.load(tmp_path / "x")) is ParametersRecord
    stream = io.BytesIO()
    assert record.write(stream) == len(stream.getvalue())
    assert type(ArrayRecord.read(io.BytesIO(stream.getvalue()))) is ArrayRecord
    with pytest.raises(ValueError, match="limit of 23"):
        ArrayRecord.read(io.BytesIO(stream.getvalue()), limit=23)
    assert ArrayRecord.read(io.BytesIO(stream.getvalue()), limit=24) == record


@pytest.mark.parametrize("mmap", [True, False])
def test_single_entries(mmap, tmp_path):
    save({name: np.full(3, i) for i, name in enumerate("abc")}, tmp_path / "x")
    record = load(tmp_path / "x", mmap, keys=["c", "a", "c"])
    assert [(name, array.numpy()[0]) for name, array in record.items()] == [("c", 2), ("a", 0)]
    assert len(load(tmp_path / "x", mmap, keys=())) == 0
    with pytest.raises(KeyError, match="has no key 'd'"):
        load(tmp_path / "x", mmap, keys=["d"])


def test_what_is_mapped_is_shared_and_what_is_read_is_not(tmp_path):
    save({"x": np.arange(100)}, tmp_path / "x")
    mapped, own = load(tmp_path / "x"), load(tmp_path / "x", mmap=False)
    assert mapped["x"].ownership == "shared" and own["x"].ownership == "snapshot"
    pointer = own["x"].numpy().ctypes.data
    (array,) = own.to_numpy_ndarrays(keep_input=False)
    assert array.ctypes.data == pointer and array.flags.writeable
    (array,) = mapped.to_numpy_ndarrays(keep_input=False)
    array += 1
    assert load(tmp_path / "x")["x"].numpy()[0] == 0


def test_a_file_that_is_larger_than_the_memory(tmp_path):
    # Sparse: 256 GiB of zeros, of which the disk has the header and the last page.
    nbytes = 256 << 30
    header = file_of({"a": entry(shape=[nbytes], offsets=(0, nbytes)), "b": entry("F32", [1], (nbytes, nbytes + 4))})
    with open(tmp_path / "x", "wb") as file:
        file.write(header)
        file.truncate(len(header) + nbytes)
        file.seek(0, 2)
        file.write(np.float32(3).tobytes())
    record = load(tmp_path / "x")
    assert record["a"].numpy()[-1] == 0 and record["b"].numpy()[0] == 3 and record["a"].ownership == "shared"
    record.verify()


def test_the_gaps_of_a_structure_are_zero(tmp_path):
    dtype = np.dtype([("a", "u1"), ("b", "<f8")], align=True)
    array = np.ones((1000, 2), dtype)[:, 0]
    for _ in range(5):
        junk = np.full(16000, 0xCD, np.uint8)
        del junk
        save({"x": array}, tmp_path / "x")
        assert b"\xcd" not in (tmp_path / "x").read_bytes()


def test_inspect(tmp_path):
    record = {"x": np.zeros((2, 3), ml_dtypes.bfloat16), "own": Array("kind", [5], "codec", b"abc"), "z": np.zeros(2, "c16")}
    save(record, tmp_path / "x", {"format": "pt"}, checksum=True)
    contents = inspect(tmp_path / "x")
    assert contents.metadata == {"format": "pt"} and list(contents.entries) == list(record)
    assert contents.nbytes == 12 + 3 + 32
    found = {name: (e.dtype, e.shape, e.stype, e.nbytes) for name, e in contents.entries.items()}
    assert found == {
        "x": ("bfloat16", (2, 3), "numpy.ndarray", 12),
        "own": ("kind", (5,), "codec", 3),
        "z": ("complex128", (2,), "numpy.ndarray", 32),
    }
    own = contents.entries["own"]
    assert own.path == str(tmp_path / "x") and (tmp_path / "x").read_bytes()[own.offset :][:3] == b"abc"


def test_the_module_says_what_it_has():
    assert all(hasattr(flatrecord.safetensors, name) for name in flatrecord.safetensors.__all__)
