"""What earlier releases have written is read for ever: pickles and files, as they were when the release was made."""

import hashlib
import importlib
import io
import json
import pickle
from pathlib import Path

import pytest

import flatrecord
from flatrecord import Array, ParametersRecord
from flatrecord.safetensors import inspect, load, read

HERE = Path(__file__).parent
MANIFESTS = {path.parent: json.loads(path.read_text()) for path in sorted(HERE.glob("*/manifest.json"))}
FILES = [(folder, name) for folder, manifest in MANIFESTS.items() for name in manifest["files"]]


@pytest.fixture(params=FILES, ids=lambda file: f"{file[0].name}/{file[1]}")
def file(request):
    folder, name = request.param
    said = MANIFESTS[folder]["files"][name]
    return folder / name, {**said, "entries": MANIFESTS[folder]["contents"][said["contents"]]}


def class_of(said: dict) -> type:
    module, _, name = said["class"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def check(arrays: dict[str, Array], said: dict) -> None:
    assert list(arrays) == list(said["entries"])
    for key, wanted in said["entries"].items():
        array, data = arrays[key], arrays[key].data
        found = {"dtype": array.dtype, "shape": list(array.shape), "listed": isinstance(array.shape, list), "stype": array.stype,
                 "sha256": hashlib.sha256(data).hexdigest()}  # fmt: skip
        assert found == wanted, key
        if array.stype == "numpy.ndarray" and array.dtype:
            assert str(array.numpy(copy=False).dtype) == array.dtype


def test_what_was_written_is_read(file):
    path, said = file
    if said["how"] == "safetensors":
        assert list(inspect(path).entries) == list(said["entries"])
        records = [load(path), load(path, mmap=False)]
        if path.suffix == ".safetensors":
            records.append(read(io.BytesIO(path.read_bytes())))
        for record in records:
            check(record, said)
            if said["checksum"]:
                record.verify(contents=True)
        return
    buffers, start = None, 0
    if "buffers" in said:
        buffers, data = [], Path(f"{path}.buffers").read_bytes()
        for size in said["buffers"]:
            buffers.append(data[start : start + size])
            start += size
        assert start == len(data)
    made = pickle.loads(path.read_bytes(), buffers=buffers)
    assert type(made) is class_of(said)
    check(made if isinstance(made, ParametersRecord) else {"": made}, said)
    if isinstance(made, ParametersRecord):
        assert made.ties() == list(map(tuple, said["ties"]))
    if "metadata" in said:
        found = made.to_torch_state_dict()._metadata
        assert {key: dict(value) for key, value in found.items()} == said["metadata"]


def test_this_release_has_written_its_own():
    assert HERE / flatrecord.__version__ in MANIFESTS, "run tests/releases/write.py and commit what it has written"


@pytest.mark.parametrize("folder", MANIFESTS, ids=lambda folder: folder.name)
def test_nothing_lies_beside_what_the_manifest_names(folder):
    manifest = MANIFESTS[folder]
    assert manifest["version"] == folder.name
    buffers = {f"{name}.buffers" for name, said in manifest["files"].items() if "buffers" in said}
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *manifest["files"], *buffers}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 200_000
