"""Write what the installed release makes of some records: pickles and files that every later one has to read.

    .venv/bin/python tests/releases/write.py [--again]

writes ``tests/releases/VERSION`` with a manifest of what is in each file. Once a release is out, its folder stays as
it is; until then ``--again`` writes it anew.
"""

import hashlib
import io
import json
import pickle
import platform
import shutil
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch

import flatrecord
import flatrecord.flower
from flatrecord import Array, ArrayRecord, ParametersRecord, array_from_numpy
from flatrecord.dtypes import SAFETENSORS

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from arrays import ALL_DTYPES, LAYOUTS, filled, npy  # noqa: E402 (once it can be found)

MANIFEST = "manifest.json"


def described(array: Any, data: bytes) -> dict[str, Any]:
    """What an Array with these serialized bytes has to be."""
    return {
        "dtype": array.dtype,
        "shape": list(array.shape),
        "listed": isinstance(array.shape, list),
        "stype": array.stype,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def sources() -> OrderedDict[str, np.ndarray]:
    """ndarrays of every dtype, and of every layout in one of them."""
    found = OrderedDict((f"{i} {dtype}", filled((2, 3), dtype)) for i, dtype in enumerate(ALL_DTYPES))
    found |= {name: layout("f4") for name, layout in LAYOUTS.items()}
    return found


def record_of(cls: type[ParametersRecord], values: Mapping[str, np.ndarray]) -> tuple[ParametersRecord, dict[str, Any]]:
    """A record of some ndarrays, and what NumPy says that it has to be."""
    record = cls(OrderedDict(values), keep_input=True)
    return record, {key: described(record[key], npy(value)) for key, value in values.items()}


def odd_entries(cls: type[Array]) -> dict[str, Array]:
    """Arrays that were not made of ndarrays, or whose shape is a list, under keys that need care."""
    data = npy(np.arange(5.0))
    return {
        "größe\n名\0": array_from_numpy(np.arange(3)) if cls is Array else cls(np.arange(3)),
        "": cls("float64", [5], "numpy.ndarray", data),
        "\U0001f600": cls("float32", (2, 2), "another serialization", b"whatever"),
        "no fields": cls("", (), "numpy.ndarray", npy(np.arange(6.0))),
    }


def with_odd_entries(record: ParametersRecord, entries: dict[str, Any]) -> None:
    record.update(odd_entries(record.array_class))
    first = next(iter(record))
    record["tied"] = record[first]
    for key in [*odd_entries(record.array_class), "tied"]:
        entries[key] = described(record[key], record[key].data)


def in_a_file(record: ParametersRecord, entries: dict[str, Any]) -> dict[str, Any]:
    """What a safetensors file makes of a record: row-major and little-endian what the format has a dtype for."""
    found = {}
    for key, array in record.items():
        found[key] = {**entries[key], "listed": False}
        if array.stype == "numpy.ndarray":
            value = array.numpy(copy=False)
            if str(value.dtype.newbyteorder("<")) in SAFETENSORS.values():
                value = np.asarray(value, value.dtype.newbyteorder("<"), order="C")
                found[key] = described(Array(value), npy(value))
    return found


class Folder:
    """The folder of a release, with what is said of each of its files."""

    def __init__(self, path: Path) -> None:
        self.path, self.files = path, {}
        self.contents: list[dict[str, Any]] = []  # to which the files refer, as several have the same

    def note(self, name: str, how: str, made: Any, entries: dict[str, Any], **more: Any) -> None:
        ties = [list(group) for group in made.ties()] if how != "safetensors" and hasattr(made, "ties") else []
        if entries not in self.contents:
            self.contents.append(entries)
        cls = f"{type(made).__module__}.{type(made).__qualname__}"
        self.files[name] = {"how": how, "class": cls, "contents": self.contents.index(entries), "ties": ties, **more}

    def pickle(self, name: str, made: Any, entries: dict[str, Any], protocols: range, **more: Any) -> None:
        for protocol in protocols:
            file = f"{name}-protocol{protocol}.pickle"
            (self.path / file).write_bytes(pickle.dumps(made, protocol))
            self.note(file, "pickle", made, entries, **more)
        if 5 in protocols:
            buffers: list[pickle.PickleBuffer] = []
            file = f"{name}-out-of-band.pickle"
            (self.path / file).write_bytes(pickle.dumps(made, 5, buffer_callback=buffers.append))
            (self.path / f"{file}.buffers").write_bytes(b"".join(buffers))
            self.note(file, "pickle", made, entries, buffers=[len(buffer.raw()) for buffer in buffers], **more)

    def save(self, name: str, record: ParametersRecord, entries: dict[str, Any], checksum: bool) -> None:
        record.save(self.path / name, {"format": "pt"}, checksum=checksum)
        self.note(name, "safetensors", ParametersRecord(), in_a_file(record, entries), checksum=checksum)


def write(folder: Folder) -> None:
    everything, entries = record_of(ParametersRecord, sources())
    with_odd_entries(everything, entries)
    folder.pickle("ParametersRecord", everything, entries, range(2, 6))
    folder.save("saved.safetensors", everything, entries, False)
    stream = io.BytesIO()
    everything.write(stream)
    (folder.path / "streamed.safetensors").write_bytes(stream.getvalue())
    folder.note("streamed.safetensors", "safetensors", ParametersRecord(), in_a_file(everything, entries), checksum=False)

    few = OrderedDict(list(sources().items())[:4])
    record, entries = record_of(ParametersRecord, few)
    with_odd_entries(record, entries)
    folder.save("checksums.safetensors", record, entries, True)
    for module, cls in ((flatrecord, ArrayRecord), (flatrecord.flower, flatrecord.flower.ArrayRecord),
                        (flatrecord.flower, flatrecord.flower.ParametersRecord)):  # fmt: skip
        record, entries = record_of(cls, few)
        with_odd_entries(record, entries)
        folder.pickle(f"{module.__name__}.{cls.__name__}", record, entries, range(2, 6, 3))
    for name, made in (("Array", Array(few["0 bool"])), ("flower.Array", flatrecord.flower.Array(few["0 bool"]))):
        folder.pickle(name, made, {"": described(made, npy(few["0 bool"]))}, range(2, 6, 3))

    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.fill_(i)
    state_dict = model.state_dict()
    record, entries = record_of(ParametersRecord, {key: tensor.numpy() for key, tensor in state_dict.items()})
    record = ParametersRecord.from_torch_state_dict(state_dict, keep_input=True)
    metadata = {key: dict(value) for key, value in state_dict._metadata.items()}
    folder.pickle("state_dict", record, entries, range(2, 6, 3), metadata=metadata)

    parts = {f"model-0000{i}-of-00002.safetensors": list(few)[2 * i - 2 : 2 * i] for i in (1, 2)}
    whole = {}
    for name, keys in parts.items():
        record, entries = record_of(ParametersRecord, {key: few[key] for key in keys})
        folder.save(name, record, entries, True)
        whole |= in_a_file(record, entries)
    index = "model.safetensors.index.json"
    places = {key: name for name, keys in parts.items() for key in keys}
    (folder.path / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    folder.note(index, "safetensors", ParametersRecord(), whole, checksum=True)


def main(again: bool) -> int:
    path = HERE / flatrecord.__version__
    if path.exists() and not again:
        print(f"{path} is there already; --again writes it anew, as long as that release is not out", file=sys.stderr)
        return 1
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    folder = Folder(path)
    write(folder)
    versions = {module.__name__: module.__version__ for module in (np, ml_dtypes, torch)} | {"python": platform.python_version()}
    manifest = {"version": flatrecord.__version__, "with": versions, "files": folder.files, "contents": folder.contents}
    (path / MANIFEST).write_text(json.dumps(manifest, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--again"]))
