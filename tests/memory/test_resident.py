"""Peak resident memory of a process that puts a touched 2 GiB model into a record.

VmHWM is what the user's machine kills for. Every case is a fresh process.
"""

import json
import os
import subprocess
import sys

import pytest
from memory.sizes import GIB, MIB

pytestmark = pytest.mark.memory

ENTRIES, ENTRY = 128, 16 * MIB
MODEL = ENTRIES * ENTRY

SCRIPT = """
import json, sys
import numpy as np
from flatrecord import Array, ParametersRecord

case = sys.argv[1]
entries, entry = int(sys.argv[2]), int(sys.argv[3])

def status(field):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(field))

ParametersRecord([np.ones(1)]).to_numpy_ndarrays(keep_input=False)  # what is loaded once is not the model's
interpreter = status("VmRSS:")
source = {}
for i in range(entries):
    array = np.full((4096, entry // 4096), i % 251, np.uint8)  # touched
    if case == "received":
        array = Array("uint8", array.shape, "numpy.ndarray", Array(array, copy=False).data)
    if case == "arrays copied":
        array = Array(array)
    source[f"layer{i}"] = array[:, ::-1] if case == "strided" else array
    del array
model = status("VmRSS:") - interpreter
held = list(source.values()) if case == "held" else None
record = ParametersRecord(source, keep_input=case == "keep", copy=True if case == "arrays copied" else None)
if case in ("round trip", "received"):
    out = record.to_numpy_ndarrays(keep_input=False)
    for array in out:
        array += 1
    record = ParametersRecord(out)
values = [int(array.numpy()[0, 0]) for array in record.values()]
print(json.dumps(dict(peak=status("VmHWM:") - interpreter, model=model, left=len(source), values=values)))
"""


def run(case: str) -> dict:
    command = [sys.executable, "-c", SCRIPT, case, str(ENTRIES), str(ENTRY)]
    # So that what the model was made from goes back to the system, and is not taken for the record's.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MIB)} if case in ("received", "arrays copied") else None
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert abs(found["model"] - MODEL) < 0.01 * MODEL  # the model was resident before the record was made
    more = case in ("round trip", "received")
    assert found["values"] == [i % 251 + more for i in range(ENTRIES)]
    return found


@pytest.mark.parametrize("case", ["take", "round trip"])
def test_taking_is_flat(case):
    found = run(case)
    assert found["peak"] <= 1.02 * MODEL
    assert found["left"] == 0


@pytest.mark.parametrize("case", ["strided", "received", "arrays copied"])
def test_a_copy_costs_one_entry_at_a_time(case):
    assert run(case)["peak"] <= 1.01 * MODEL + ENTRY


@pytest.mark.parametrize("case", ["keep", "held"])
def test_the_bounds_fail_where_the_model_is_duplicated(case):
    assert run(case)["peak"] >= 1.98 * MODEL > 1.02 * MODEL + ENTRY


def test_the_model_is_large():
    assert MODEL == 2 * GIB
