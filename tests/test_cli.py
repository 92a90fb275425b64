"""The command ``flatrecord``, as a person calls it."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from flatrecord import Array
from flatrecord.cli import main
from flatrecord.safetensors import load, save


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "m.safetensors"
    record = {"weight": np.zeros((300, 2000), "f4"), "bias": np.zeros(3, ml_dtypes.bfloat16), "step": np.array(1)}
    save({**record, "own": Array("x", [7], "codec", b"abc"), "bad\x1b[2Jname": np.zeros(1)}, path, {"format": "pt"})
    return path


def test_inspect(file, capsys):
    assert main(["inspect", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "name            dtype      shape         bytes",
        "weight          float32    300×2000  2,400,000",
        "bias            bfloat16   3                 6",
        "step            int64      scalar            8",
        "own             x (codec)  7                 3",
        "bad\\x1b[2Jname  float64    1                 8",
        "metadata format: pt",
        "5 entries, 2,400,025 bytes (2.29 MiB)",
        "float32: 2,400,000 bytes (2.29 MiB), int64: 8 bytes, float64: 8 bytes, bfloat16: 6 bytes, x: 3 bytes",
    ]


def test_inspect_for_programs(file, capsys):
    assert main(["inspect", "--json", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nbytes"] == 2_400_025 and found["metadata"] == {"format": "pt"}
    assert [entry["name"] for entry in found["entries"]][:2] == ["weight", "bias"]
    first = found["entries"][0]
    assert first["offset"] % 64 == 0 and first.pop("offset") > 0
    assert first == {
        "name": "weight", "dtype": "float32", "shape": [300, 2000], "stype": "numpy.ndarray", "nbytes": 2_400_000, "path": str(file)
    }  # fmt: skip


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_inspect_other_formats(suffix, tmp_path, capsys):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, w=np.zeros((2, 3), "f4"))
    else:
        torch.save({"w": torch.zeros(2, 3)}, path)
    assert main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["w     float32  2×3       24", "1 entry, 24 bytes"]
    assert main(["inspect", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["entries"][0]["offset"] is None


def test_convert(file, capsys):
    target = file.with_suffix(".npz")
    save({"x": np.arange(10)}, file)
    assert main(["convert", str(file), str(target)]) == 0
    assert capsys.readouterr().out == f"{target}: 1 entry, {target.stat().st_size} bytes\n"
    assert main(["convert", str(file), str(target)]) == 1
    assert capsys.readouterr().err == f"flatrecord: {target} is there already: --force replaces it\n"
    assert main(["convert", "--force", str(file), str(target)]) == 0
    # A mapped file may be its own target.
    assert main(["convert", "-f", str(file), str(file)]) == 0
    assert load(file)["x"].numpy().tolist() == list(range(10))


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["inspect", "missing.safetensors"], "missing.safetensors"),
        (["inspect", "a.zip"], "unknown suffix"),
        (["inspect", "junk.safetensors"], "not valid safetensors"),
        (["convert", "missing.npz", "b.pt"], "missing.npz"),
        (["convert", "junk.safetensors", "b.zip"], "unknown suffix"),
        (["convert", "junk.safetensors", "no folder/b.npz"], "not valid safetensors"),
    ],
)
def test_reasons(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("junk.safetensors").write_bytes(b"junk")
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("flatrecord: ") and reason in printed.err
    assert os.listdir() == ["junk.safetensors"]


@pytest.mark.parametrize("arguments", [[], ["inspect"], ["convert", "a"], ["melt", "a"]])
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2 and "usage: flatrecord" in capsys.readouterr().err


def test_as_a_command(file):
    for command in ([sys.executable, "-m", "flatrecord"], [str(Path(sys.executable).parent / "flatrecord")]):
        done = subprocess.run([*command, "inspect", file], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout.startswith("name ") and done.stderr == ""
        assert subprocess.run([*command, "--version"], capture_output=True, timeout=60).stdout


def test_a_reader_that_has_read_enough(tmp_path):
    save({f"layer{i}": np.zeros(1) for i in range(20_000)}, tmp_path / "x.safetensors")
    command = f"'{sys.executable}' -m flatrecord inspect '{tmp_path / 'x.safetensors'}' | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("name") and done.stderr == ""


def on_a_terminal(*arguments) -> str:
    """What a command writes where its standard error is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flatrecord", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux says so when the other end is closed
                break
            shown += piece
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def test_a_progress_bar(file):
    shown = on_a_terminal("convert", file, file.with_suffix(".again.safetensors"))
    assert "m.again.safetensors" in shown and "2.3/2.3 MiB" in shown
