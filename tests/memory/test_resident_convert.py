"""Peak memory of ``flatrecord convert`` on a 1 GiB checkpoint: an entry at most, and nothing where both ends are mapped or written.

Anonymous memory is what is looked at, because what is mapped of a file counts as resident while there is room for it.
"""

import subprocess
import sys
import time

import numpy as np
import pytest
from memory.sizes import GIB, MIB

from flatrecord import ParametersRecord
from flatrecord.convert import convert

pytestmark = pytest.mark.memory

ENTRIES, ENTRY = 16, 64 * MIB
MODEL = ENTRIES * ENTRY

SCRIPT = """
import sys
import flatrecord.cli
if any(name.endswith(".pt") for name in sys.argv[1:]):
    import torch
print("ready", flush=True)
sys.stdin.readline()
sys.exit(flatrecord.cli.main(["convert", "--force", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the same checkpoint in three formats."""
    folder = tmp_path_factory.mktemp("convert")
    ParametersRecord({f"layer{i}": np.full(ENTRY // 4, i, "f4") for i in range(ENTRIES)}).save(folder / "x.safetensors")
    for suffix in ("npz", "pt"):
        convert(str(folder / "x.safetensors"), str(folder / f"x.{suffix}"))
    return folder


def anonymous(process: subprocess.Popen) -> int:
    """Bytes of a process's memory that no file is behind."""
    with open(f"/proc/{process.pid}/status") as file:
        return next((int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:")), 0)


def peak(*paths) -> int:
    command = [sys.executable, "-c", SCRIPT, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        before = highest = anonymous(process)
        process.stdin.write("\n")
        process.stdin.flush()
        while process.poll() is None:
            highest = max(highest, anonymous(process))
            time.sleep(0.002)
    assert process.returncode == 0
    return highest - before


@pytest.mark.parametrize("source", ["safetensors", "pt"])
@pytest.mark.parametrize("target", ["safetensors", "npz", "pt"])
def test_what_is_mapped_takes_no_memory(source, target, folder, tmp_path):
    assert peak(folder / f"x.{source}", tmp_path / f"y.{target}") <= 32 * MIB


@pytest.mark.parametrize("target", ["safetensors", "npz"])
def test_an_npz_takes_an_entry(target, folder, tmp_path):
    assert peak(folder / "x.npz", tmp_path / f"y.{target}") <= 2 * ENTRY + 32 * MIB


def test_the_bound_fails_where_all_is_read(folder, tmp_path):
    assert peak(folder / "x.npz", tmp_path / "y.pt") >= 0.95 * MODEL > 2 * ENTRY + 32 * MIB


def test_the_checkpoint_is_large():
    assert MODEL == GIB
