"""A record tells whether what it was loaded from has changed."""

import io
import os
import shutil

import numpy as np
import pytest
from files.written import header_of

from flatrecord import Array, ParametersRecord
from flatrecord.safetensors import load, read, save, write


@pytest.fixture(params=[True, False], ids=["mapped", "read"])
def loaded(request, tmp_path):
    """A record and the file that it was loaded from."""
    path = tmp_path / "x.safetensors"
    source = {"a": np.arange(1000), "b": np.asfortranarray(np.ones((3, 4))), "c": np.zeros(0), "d": np.ones(3, "c16")}
    source["own"] = Array("x", [1], "y", b"bytes")
    save(source, path, checksum=True)
    os.utime(path, ns=(0, 0))
    return load(path, request.param), path


def test_what_is_unchanged(loaded):
    record, _ = loaded
    record.verify()
    record.verify(contents=True)
    record.copy().verify(contents=True)


def test_what_was_written_to(loaded):
    record, path = loaded
    with open(path, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    with pytest.raises(ValueError, match=r"x.safetensors: was written to"):
        record.verify()
    os.utime(path, ns=(0, 0))
    record.verify()
    if record["a"].ownership == "shared":
        with pytest.raises(ValueError, match=r"key 'own': its SHA-256 is .*, and was"):
            record.verify(contents=True)
    else:
        record.verify(contents=True)


def test_what_was_cut_or_has_grown(loaded):
    record, path = loaded
    os.truncate(path, path.stat().st_size + 1)
    with pytest.raises(ValueError, match=r"has .* bytes, and had"):
        record.verify()


@pytest.mark.posix
def test_what_was_replaced(loaded):
    record, path = loaded
    save({"a": np.zeros(1)}, path)
    with pytest.raises(ValueError, match="another file is in its place"):
        record.verify()
    assert record["a"].numpy()[-1] == 999


def test_what_is_gone(loaded):
    record, path = loaded
    path.unlink()
    with pytest.raises(ValueError, match="cannot be found any more: No such file"):
        record.verify()


def test_entries_that_are_not_what_was_saved(loaded):
    record, _ = loaded
    record["new"] = Array(np.ones(1))
    record.verify(contents=True)
    record["a"] = Array(np.arange(1000) + 1)
    with pytest.raises(ValueError, match="key 'a': its SHA-256"):
        record.verify(contents=True)
    del record["a"]
    with pytest.raises(ValueError, match=r"key 'a': .* not in the record any more"):
        record.verify(contents=True)


def test_the_same_bytes_of_another_kind_are_not_what_was_saved(tmp_path):
    save({"a": np.zeros(4, "f4")}, tmp_path / "x", checksum=True)
    record = load(tmp_path / "x")
    for other in (np.zeros(4, "i4"), np.zeros((2, 2), "f4")):
        record["a"] = Array(other)
        with pytest.raises(ValueError, match=r"key 'a': it is \(.*\), and was \('float32', \(4,\), 'numpy.ndarray'\)"):
            record.verify(contents=True)


def test_nothing_is_passed_over_and_nothing_is_nothing(tmp_path):
    save({}, tmp_path / "empty", checksum=True)
    load(tmp_path / "empty").verify(contents=True)
    for name, checksum in (("a", True), ("b", False)):
        save({name: np.ones(3)}, tmp_path / f"{name}.safetensors", checksum=checksum)
    index = tmp_path / "x.index.json"
    index.write_text('{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}')
    with pytest.raises(ValueError, match="key 'b': it was saved without a checksum"):
        load(index).verify(contents=True)


def test_only_what_was_asked_for_is_compared(loaded):
    _, path = loaded
    load(path, keys=["b"]).verify(contents=True)


def test_a_wrong_byte_in_the_file_is_found(loaded):
    _, path = loaded
    header, begin = header_of(path)
    with open(path, "r+b") as file:
        file.seek(begin + header["d"]["data_offsets"][0])
        file.write(b"\x01")
    for mmap in (True, False):
        with pytest.raises(ValueError, match="key 'd'"):
            load(path, mmap).verify(contents=True)


def test_the_checksums_travel_on_a_stream(loaded):
    _, path = loaded
    with open(path, "rb") as stream:
        record = read(stream)
    record.verify()
    record.verify(contents=True)


def test_a_checksum_changes_no_byte_of_payload(tmp_path):
    source = {"a": np.arange(3, dtype="u1"), "b": np.ones(50_000_000, "u1")}
    save(source, tmp_path / "with", checksum=True)
    save(source, tmp_path / "without")
    (_, begin), (_, other) = header_of(tmp_path / "with"), header_of(tmp_path / "without")
    assert (tmp_path / "with").read_bytes()[begin:] == (tmp_path / "without").read_bytes()[other:]
    load(tmp_path / "with").verify(contents=True)


def test_nothing_to_compare_with(tmp_path):
    with pytest.raises(ValueError, match="was not loaded from a file"):
        ParametersRecord().verify()
    save({"a": np.ones(1)}, tmp_path / "x")
    load(tmp_path / "x").verify()
    with pytest.raises(ValueError, match="key 'a': it was saved without a checksum"):
        load(tmp_path / "x").verify(contents=True)
    stream = io.BytesIO()
    write({"a": np.ones(1)}, stream)
    stream.seek(0)
    record = read(stream)
    record.verify()
    shutil.rmtree(tmp_path)
    record.verify()
