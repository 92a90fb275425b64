"""A disk that is really full: the old file and the record are as they were, nothing is left over, and there is room again.

The disk is a small tmpfs. It is mounted in a mount namespace of the process that fills it, and so is gone with it.
"""

import json
import os
import subprocess
import sys

import pytest
from faults.injection import environment

APART = ["unshare", "--map-root-user", "--mount"]

SCRIPT = """
import errno, gc, json, os, subprocess, sys
import numpy as np
from flatrecord import Array, ParametersRecord
from flatrecord.convert import convert
from flatrecord.safetensors import load, save

folder, what, keep = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
# What a user without rights can do in a namespace of his own.
done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
assert done.returncode == 0, f"a small tmpfs is needed, and cannot be mounted: {done.stderr}"
MIB = 1 << 20
path = os.path.join(folder, "model.safetensors")
save({"old": np.arange(3)}, path)

def entries():
    return {f"layer{i}": np.full(MIB - 4096, i, "u1") for i in range(5)}

def free():
    found = os.statvfs(folder)
    return found.f_bavail * found.f_bsize

before, record = free(), ParametersRecord(entries())
outside = os.path.join(sys.argv[4], "source.safetensors")
save(entries(), outside)

def write_to():
    try:
        with open(os.path.join(folder, "array"), "wb", buffering=0) as file:
            Array(np.zeros(5 * MIB, "u1")).write_to(file)
    finally:
        os.unlink(os.path.join(folder, "array"))

def index():
    # Two files of a checkpoint, of which the second finds no room.
    save({name: record[name] for name in list(record)[:2]}, os.path.join(folder, "a.safetensors"))
    try:
        save({name: record[name] for name in list(record)[2:]}, os.path.join(folder, "b.safetensors"))
    finally:
        assert list(load(os.path.join(folder, "a.safetensors"))) == list(record)[:2]
        os.unlink(os.path.join(folder, "a.safetensors"))

work = {
    "save": lambda: save(record, path, keep_input=keep),
    "checksum": lambda: save(record, path, keep_input=keep, checksum=True),
    "sharded": index,
    "write_to": write_to,
    "npz": lambda: convert(outside, os.path.join(folder, "model.npz")),
    "pt": lambda: convert(outside, os.path.join(folder, "model.pt")),
    "safetensors": lambda: convert(outside, path),
}[what]
if what == "pt":
    import torch
descriptors = len(os.listdir("/proc/self/fd"))
for _ in range(3):
    code = None
    try:
        work()
    except OSError as error:
        code = error.errno
    assert code == errno.ENOSPC, code
    assert [(name, int(array.numpy().min()), int(array.numpy().max()), array.shape) for name, array in record.items()] == [
        (f"layer{i}", i, i, (MIB - 4096,)) for i in range(5)
    ]
    assert os.listdir(folder) == ["model.safetensors"] and load(path)["old"].numpy().tolist() == [0, 1, 2]
    if what in ("save", "checksum") and not keep:
        record = ParametersRecord({name: Array(array.numpy()) for name, array in record.items()})  # no view on the unfinished file
    gc.collect()  # zipfile leaves cycles
    assert free() == before and len(os.listdir("/proc/self/fd")) == descriptors, (free(), before)
for name in list(record)[3:]:
    del record[name]
assert save(record, path, keep_input=keep) > 3 * MIB - 20_000 and list(load(path)) == ["layer0", "layer1", "layer2"]
print(json.dumps("as it was"))
"""


def can_mount() -> bool:
    """Whether this system lets a user mount something in a namespace of his own: some forbid it."""
    command = [*APART, "sh", "-c", "mount -t tmpfs tmpfs /tmp"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif("CI" not in os.environ and not can_mount(), reason="this system lets no user mount a small tmpfs")
@pytest.mark.parametrize(
    "what, keep_input",
    [
        *((name, keep_input) for name in ("save", "checksum") for keep_input in (True, False)),
        *((name, True) for name in ("sharded", "write_to", "npz", "pt", "safetensors")),
    ],
)
def test_a_full_disk(what, keep_input, tmp_path):
    disk, outside = tmp_path / "disk", tmp_path / "outside"
    disk.mkdir()
    outside.mkdir()
    command = [*APART, sys.executable, "-c", SCRIPT, str(disk), what, str(keep_input), str(outside)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(None))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == "as it was"
