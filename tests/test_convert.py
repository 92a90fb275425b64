"""Checkpoints from one format to another: every way there and back, bit for bit."""

import json
import zipfile
from contextlib import ExitStack

import ml_dtypes
import numpy as np
import pytest
import torch
from files.written import in_folder

from flatrecord import Array
from flatrecord.convert import convert, kind_of, opened
from flatrecord.safetensors import inspect, load, save

KINDS = ["safetensors", "npz", "pt"]


def source() -> dict[str, np.ndarray]:
    return {
        "z/weight": np.asfortranarray(np.arange(12, dtype="f4").reshape(3, 4)),
        "a.bias": np.arange(5, dtype="f8"),
        "brain": np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3),
        "small": np.arange(6).astype(ml_dtypes.float8_e4m3fn),
        "float8_e5m2": np.arange(6).astype(ml_dtypes.float8_e5m2),
        "scalar": np.array(3),
        "empty": np.zeros((0, 2), "i4"),
        "flags": np.array([True, False]),
        "wide": np.arange(3, dtype="c16"),
    }


def values(path) -> dict[str, tuple]:
    with ExitStack() as stack:
        checkpoint = opened(str(path), stack)
        save(checkpoint.values, path.parent / "values.safetensors")
        return {name: (a.dtype, tuple(a.shape), a.numpy().tobytes()) for name, a in load(path.parent / "values.safetensors").items()}


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_there_and_back(first, second, tmp_path):
    save(source(), tmp_path / "a.safetensors", {"format": "pt", "who": "me"})
    wanted = values(tmp_path / "a.safetensors")
    path = tmp_path / "a.safetensors"
    for i, kind in enumerate((first, second, "safetensors")):
        target = tmp_path / f"{i}.{kind}"
        seen, totals = [], []
        assert convert(str(path), str(target), begin=totals.append, progress=seen.append) == 9
        assert totals == [sum(len(raw) for _, _, raw in wanted.values())] and sum(seen) >= totals[0]
        assert values(target) == wanted
        path = target
    if first == second == "safetensors":
        assert inspect(path).metadata == {"format": "pt", "who": "me"}


def test_what_is_written_is_what_the_libraries_write(tmp_path):
    save(source(), tmp_path / "a.safetensors")
    convert(str(tmp_path / "a.safetensors"), str(tmp_path / "a.npz"))
    with np.load(tmp_path / "a.npz") as archive:
        assert list(archive) == list(source())
        for name, array in source().items():
            assert archive[name].shape == array.shape and archive[name].tobytes() == array.tobytes("C")
        assert archive["z/weight"].dtype == "f4"
    convert(str(tmp_path / "a.npz"), str(tmp_path / "a.pt"))
    state_dict = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(state_dict) == list(source()) and state_dict["brain"].dtype is torch.bfloat16
    state_dict["a.bias"] += 1  # an ordinary tensor


def test_other_programs_files(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(1000), y=np.asfortranarray(np.ones((2, 3))))
    convert(str(tmp_path / "a.npz"), str(tmp_path / "a.safetensors"))
    record = load(tmp_path / "a.safetensors")
    assert np.array_equal(record["x"].numpy(), np.arange(1000)) and record["y"].shape == (2, 3)
    assert inspect(tmp_path / "a.safetensors").metadata == {"format": "np"}
    model = torch.nn.Linear(3, 4, dtype=torch.bfloat16)
    for options in ({}, {"_use_new_zipfile_serialization": False}):  # the old format cannot be mapped
        torch.save(model.state_dict(), tmp_path / "b.pth", **options)
        convert(str(tmp_path / "b.pth"), str(tmp_path / "b.safetensors"))
        assert torch.equal(load(tmp_path / "b.safetensors")["weight"].torch(), model.weight)
        assert inspect(tmp_path / "b.safetensors").metadata == {"format": "pt"}


def test_the_entry_of_a_training_checkpoint(tmp_path):
    torch.save({"model": {"w": torch.ones(2)}, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="not a dict of tensors; choose one of its dicts by --entry: model, optimizer"):
        convert(str(tmp_path / "a.ckpt"), str(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match="has no entry 'weights'; choose"):
        convert(str(tmp_path / "a.ckpt"), str(tmp_path / "a.npz"), entry="weights")
    assert convert(str(tmp_path / "a.ckpt"), str(tmp_path / "a.npz"), entry="model") == 1
    with pytest.raises(ValueError, match="only torch checkpoints have entries"):
        convert(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), entry="model")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_what_cannot_be_converted(tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    torch.save({"a": torch.ones(2).to_sparse()}, tmp_path / "sparse.pt")
    np.savez(tmp_path / "objects.npz", a=np.array([None]))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("a.npy", "junk")
    np.savez(tmp_path / "cut.npz", a=np.arange(100))
    data = bytearray((tmp_path / "cut.npz").read_bytes())
    data[300] ^= 1
    (tmp_path / "changed.npz").write_bytes(data)
    save({"a": np.array(["text"])}, tmp_path / "text.safetensors")
    save({"a": Array("x", [1], "codec", b"abc")}, tmp_path / "own.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    before = in_folder(tmp_path)
    for name, target, error, reason in [
        ("evil.pt", "b.npz", ValueError, "weights_only=True"),
        ("list.pt", "b.npz", ValueError, "not a dict of tensors, but a list"),
        ("sparse.pt", "b.npz", TypeError, "key 'a': a tensor must be dense"),
        ("objects.npz", "b.safetensors", ValueError, "key 'a.npy': it holds Python objects"),
        ("junk.npz", "b.safetensors", ValueError, "junk.npz: not a .npz file"),
        ("junk.pt", "b.safetensors", ValueError, "junk.pt: torch cannot load it"),
        ("text.npz", "b.safetensors", ValueError, "key 'a.npy': not an array of NumPy's"),
        ("changed.npz", "b.safetensors", ValueError, "key 'a.npy': .*Bad CRC-32"),
        ("text.safetensors", "b.pt", TypeError, "key 'a': torch .* has no dtype"),
        ("own.safetensors", "b.pt", TypeError, "key 'a': stype 'codec' is none that torch can hold"),
        ("own.safetensors", "b.npz", TypeError, "key 'a': stype 'codec' cannot be read as a NumPy array"),
        ("missing.pt", "b.npz", FileNotFoundError, "missing.pt"),
        ("missing.npz", "b.pt", FileNotFoundError, "missing.npz"),
        ("cut.npz", "b.zip", ValueError, "b.zip: unknown suffix; known are .safetensors"),
        ("cut.npz", "b.index.json", ValueError, "an index is for several"),
        ("model.safetensors.index.json", "b.npz", ValueError, "has no weight_map"),
    ]:
        with pytest.raises(error, match=reason):
            convert(str(tmp_path / name), str(tmp_path / target))
        assert in_folder(tmp_path) == before
    assert "executed" not in capsys.readouterr().out


def test_a_checkpoint_in_several_files_becomes_one(tmp_path):
    for name in "ab":
        save({name: np.full(3, ord(name))}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"b": "b.safetensors", "a": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert convert(str(tmp_path / "model.safetensors.index.json"), str(tmp_path / "one.safetensors")) == 2
    assert list(load(tmp_path / "one.safetensors")) == ["b", "a"]


@pytest.mark.parametrize("path, kind", [("a.safetensors", "safetensors"), ("pytorch_model.bin", "torch"), ("x.y.npz", "npz")])
def test_kinds(path, kind):
    assert kind_of(path) == kind
