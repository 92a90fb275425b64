"""Checkpoints in several files, which load as one record."""

import json
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from memory.sizes import MIB

from flatrecord.safetensors import inspect, load, save, shards

FILES = {"model-00001-of-00002.safetensors": ["z", "a"], "model-00002-of-00002.safetensors": ["m"]}
FIRST, SECOND = FILES


@pytest.fixture
def index(tmp_path):
    """An index of three entries in two files, which is not in the order of either."""
    for i, (name, keys) in enumerate(FILES.items()):
        save({key: np.full(1000, ord(key)) for key in keys}, tmp_path / name, {"format": "pt", str(i): "x"}, checksum=True)
    return indexed(tmp_path, {"m": SECOND, "z": FIRST, "a": FIRST})


def indexed(folder, weight_map):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 24000}, "weight_map": weight_map}))
    return path


@pytest.mark.parametrize("mmap", [True, False])
def test_one_record(mmap, index):
    record = load(index, mmap)
    assert list(record) == ["m", "z", "a"]
    assert all(np.all(array.numpy() == ord(name)) for name, array in record.items())
    record.verify(contents=True)


def test_a_file_of_which_nothing_is_wanted_is_not_opened(index):
    (index.parent / SECOND).unlink()
    assert list(load(index, keys=["a", "z"])) == ["a", "z"]
    with pytest.raises(FileNotFoundError, match="00002-of-00002"):
        load(index)
    with pytest.raises(KeyError, match="no key 'b'"):
        load(index, keys=["b"])


def test_inspect(index):
    contents = inspect(index)
    assert list(contents.entries) == ["m", "z", "a"] and contents.nbytes == 24000
    assert contents.metadata == {"format": "pt", "0": "x", "1": "x"}
    assert contents.entries["z"].path == str(index.parent / FIRST)


@pytest.mark.posix
def test_every_file_is_verified(index):
    record = load(index)
    save({"m": np.zeros(1)}, index.parent / SECOND)
    with pytest.raises(ValueError, match=r"00002-of-00002.safetensors: another file is in its place"):
        record.verify()


def test_the_other_librarys_files(tmp_path):
    for name, keys in FILES.items():
        safetensors.numpy.save_file({key: np.full(3, ord(key), "f4") for key in keys}, tmp_path / name)
    path = indexed(tmp_path, {key: name for name, keys in FILES.items() for key in keys})
    assert [(name, array.numpy()[0]) for name, array in load(path).items()] == [("z", 122), ("a", 97), ("m", 109)]


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"", "JSON is broken"),
        (b"[]", "is a list, not an object"),
        (b"{}", "has no weight_map"),
        (b'{"weight_map": []}', "has no weight_map"),
        (b'{"weight_map": {"a": 1}}', "key 'a' should be in 1"),
        (b'{"weight_map": {"a": ""}}', "key 'a' should be in ''"),
        (b'{"weight_map": {"a": ".."}}', "not the name of a file beside the index"),
        (b'{"weight_map": {"a": "../x.safetensors"}}', "not the name of a file beside the index"),
        (b'{"weight_map": {"a": "/etc/passwd"}}', "not the name of a file beside the index"),
        (b'{"weight_map": {"a": "x\\u0000y"}}', "not the name of a file beside the index"),
        (b'{"weight_map": {"a": "x", "a": "y"}}', "key 'a' comes twice"),
        (b'{"weight_map": {"a": "\xff"}}', "not UTF-8"),
    ],
)
def test_a_broken_index(text, reason, tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(text)
    for call in (load, inspect):
        with pytest.raises(ValueError, match=reason) as raised:
            call(path)
        assert str(raised.value).startswith(f"{path}: ")


def test_an_index_takes_no_more_memory_than_it_is_long(index, monkeypatch):
    tracemalloc.start()
    try:
        inspect(index)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(shards, "MAX_INDEX", 100)
    with pytest.raises(ValueError, match=r"the index has \d{3} bytes, more than 100"):
        inspect(index)


def test_an_entry_that_is_not_where_the_index_says(index):
    indexed(index.parent, {"z": FIRST, "m": FIRST})
    with pytest.raises(ValueError, match=r"key 'm' should be in model-00001-of-00002.safetensors, and is not there"):
        load(index)
