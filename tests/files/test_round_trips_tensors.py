"""Tensors go into a file or a stream and come out again, and torch's own files of the format are read."""

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from files.written import WAYS, back

from flatrecord import ParametersRecord
from flatrecord.dtypes import TORCH
from flatrecord.safetensors import load, read, save
from profiling.models import real_weights


@pytest.mark.parametrize("way", WAYS)
def test_tensors(way, tmp_path):
    state_dict = {
        "weight": torch.arange(6.0).reshape(2, 3).T,
        "brain": torch.ones(3, dtype=torch.bfloat16),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "wide conjugate": torch.tensor([1 + 2j], dtype=torch.complex128).conj(),
        "strided": torch.arange(10).to(torch.complex128)[::3],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    record = back(way, state_dict, tmp_path / "x")
    assert len(state_dict) == 7
    for name, tensor in record.to_torch_state_dict().items():
        assert torch.equal(tensor, state_dict[name].detach()) and tensor.dtype == state_dict[name].dtype


def test_every_tensor_dtype(tmp_path):
    for name in TORCH:
        tensor = (
            torch.zeros(8, dtype=torch.uint8).view(getattr(torch, name)) if name != "complex128" else torch.zeros(1, dtype=torch.complex128)
        )
        save({"x": tensor}, tmp_path / "x")
        assert torch.equal(load(tmp_path / "x")["x"].torch().view(torch.uint8), tensor.view(torch.uint8))


def test_the_other_library_reads_ours_as_torch(tmp_path):
    names = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float16", "complex64", "bool", "uint16"]
    source = {name: torch.randint(0, 2, (8, 8), dtype=torch.uint8).view(getattr(torch, name)) for name in names}
    ParametersRecord.from_torch_state_dict(source, keep_input=True).save(tmp_path / "x")
    for found in (safetensors.torch.load_file(tmp_path / "x"), safetensors.torch.load((tmp_path / "x").read_bytes())):
        for name, tensor in source.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize("way", WAYS)
def test_we_read_the_other_librarys(way, tmp_path):
    names = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float16", "float32", "int64", "bool", "complex64"]
    source = {name: torch.randint(0, 2, (8, 8), dtype=torch.uint8).view(getattr(torch, name)) for name in names}
    source |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    safetensors.torch.save_file(source, tmp_path / "x", {"format": "pt"})
    if way == "stream":
        with open(tmp_path / "x", "rb") as stream:
            record = read(stream)
    else:
        record = load(tmp_path / "x", mmap=way == "mapped")
    assert record.keys() == source.keys()
    for name, tensor in record.to_torch_state_dict().items():
        assert tensor.dtype == source[name].dtype and tensor.shape == source[name].shape
        assert tensor.numel() == 0 or torch.equal(tensor.view(-1).view(torch.uint8), source[name].view(-1).view(torch.uint8))


def test_torch_reads_our_file_of_a_real_model(tmp_path):
    load(real_weights()).save(tmp_path / "x.safetensors")
    reference, tensors = safetensors.numpy.load_file(real_weights()), safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert tensors.keys() == reference.keys() and len(tensors) == 104
    assert all(np.array_equal(tensors[name].numpy(), array) for name, array in reference.items())


def test_writing_to_a_tensor_on_a_mapped_array_is_torchs_error_and_never_the_files(tmp_path):
    save({"x": np.arange(1000.0)}, tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    record = load(tmp_path / "x")
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        record.to_torch_state_dict()["x"].add_(1)
    torch.from_dlpack(record["x"])[0] = 7
    assert (tmp_path / "x").read_bytes() == before
    with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
        record["x"].numpy().flags.writeable = True
