"""Peak resident memory of processes that write a touched 2 GiB model to a file or a socket, and get it back.

VmHWM is what the user's machine kills for. Every case is a fresh process.
"""

import json
import os
import socket
import subprocess
import sys

import pytest
from memory.sizes import GIB, MIB

pytestmark = pytest.mark.memory

ENTRIES, ENTRY = 128, 16 * MIB
MODEL = ENTRIES * ENTRY

SCRIPT = """
import json, socket, sys
import numpy as np
import flatrecord.safetensors
from flatrecord import ParametersRecord

case, path = sys.argv[1:3]
entries, entry = int(sys.argv[3]), int(sys.argv[4])

def status(field):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(field))

def model():
    for i in range(entries):
        array = np.full((4096, entry // 4096 // 4), i, "f4")  # touched
        yield f"layer{i}", np.asfortranarray(array) if case == "save fortran" else array

def check(record):
    return all(float(array.numpy()[-1, -1]) == i for i, array in enumerate(record.values()))

ParametersRecord([np.ones(1)]).save(path + "1")  # what is loaded once is not the model's
ParametersRecord.load(path + "1", mmap=False)
interpreter = status("VmRSS:")
found = {}
if case in ("send", "send and keep"):
    record = ParametersRecord(dict(model()))
    with socket.socket(fileno=0) as peer:
        record.write(peer, keep_input=case == "send and keep")
        peer.recv(1)
elif case == "receive":
    with socket.socket(fileno=0) as peer:
        record = ParametersRecord.read(peer)
        peer.send(b"x")
    found["equal"] = check(record)
elif case.startswith("save"):
    record = ParametersRecord(dict(model()))
    if case == "save pickled":
        import pickle
        pickle.dumps(record)
    record.save(path, keep_input=case == "save and keep", checksum=case == "save with checksums")
    found["equal"] = True
elif case == "one entry":
    found["equal"] = bool(ParametersRecord.load(path)["layer7"].numpy().sum() == 7 * (entry // 4))
else:
    record = ParametersRecord.load(path, mmap=case == "map")
    if case == "round trip":
        record = ParametersRecord(record.to_numpy_ndarrays(keep_input=False))
    found["equal"] = check(record)
found.update(peak=status("VmHWM:") - interpreter, end=status("VmRSS:") - interpreter)
print(json.dumps(found), file=sys.stderr)
"""


def start(case: str, path, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, case, str(path), str(ENTRIES), str(ENTRY)]
    environment = dict(os.environ)
    if case == "save fortran":  # whose rows NumPy makes anew; glibc may keep them, once free, as long as anything small lies above them
        environment["MALLOC_MMAP_THRESHOLD_"] = str(MIB)
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **options)


def finish(process: subprocess.Popen) -> dict:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    found = json.loads(errors)
    assert found.get("equal", True)
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file of 2 GiB."""
    path = tmp_path_factory.mktemp("files") / "x.safetensors"
    finish(start("save", path))
    assert path.stat().st_size >= MODEL
    return path


@pytest.mark.parametrize("case", ["save", "save and keep", "save with checksums", "save fortran"])
def test_saving_is_flat(case, tmp_path):
    found = finish(start(case, tmp_path / "x"))
    assert found["peak"] <= 1.02 * MODEL
    assert found["end"] >= 0.98 * MODEL if case == "save and keep" else found["end"] <= 0.02 * MODEL


def test_the_bound_on_saving_fails_for_a_pickle(tmp_path):
    assert finish(start("save pickled", tmp_path / "x"))["peak"] >= 1.98 * MODEL


def test_a_mapped_file_takes_no_memory(path):
    assert finish(start("map", path))["peak"] <= 0.02 * MODEL


def test_one_mapped_entry_takes_one_entry(path):
    assert finish(start("one entry", path))["peak"] <= ENTRY + 0.01 * MODEL


@pytest.mark.parametrize("case", ["read", "round trip"])
def test_reading_takes_the_model_once(case, path):
    assert 0.98 * MODEL <= finish(start(case, path))["peak"] <= 1.02 * MODEL


@pytest.mark.parametrize("case", ["send", "send and keep"])
def test_a_record_goes_to_another_process_at_its_own_size(case, tmp_path):
    left, right = socket.socketpair()
    with left, right:
        sender = start(case, tmp_path / "a", stdin=left.fileno())
        receiver = start("receive", tmp_path / "b", stdin=right.fileno())
    received, sent = finish(receiver), finish(sender)
    assert received["peak"] <= 1.02 * MODEL and sent["peak"] <= 1.02 * MODEL
    assert sent["end"] >= 0.98 * MODEL if case == "send and keep" else sent["end"] <= 0.02 * MODEL


def test_the_model_is_large():
    assert MODEL == 2 * GIB
