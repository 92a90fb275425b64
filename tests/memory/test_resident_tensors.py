"""Peak resident memory of a process that puts a touched 2 GiB state_dict into a record.

VmHWM is what the user's machine kills for. Every case is a fresh process.
"""

import json
import subprocess
import sys

import pytest
from memory.sizes import GIB, MIB

pytestmark = pytest.mark.memory

ENTRIES, ENTRY = 64, 32 * MIB
MODEL = ENTRIES * ENTRY

SCRIPT = """
import json, sys
import torch
from flatrecord import ParametersRecord

case, name = sys.argv[1:3]
entries, entry = int(sys.argv[3]), int(sys.argv[4])
dtype = getattr(torch, name)

def status(field):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(field))

torch.ones(1000, dtype=dtype).conj().resolve_conj()
ParametersRecord({"x": torch.ones(1, dtype=dtype)}).to_torch_state_dict(keep_input=False)  # loaded once
interpreter = status("VmRSS:")
source = {}
for i in range(entries):
    tensor = torch.full((4096, entry // 4096 // dtype.itemsize), i % 100, dtype=dtype)  # touched
    source[f"layer{i}"] = tensor.conj() if case == "conjugate" else tensor
    del tensor
model = status("VmRSS:") - interpreter
held = list(source.values()) if case == "held" else None
copy = False if case == "borrow" else None
record = ParametersRecord.from_torch_state_dict(source, keep_input=case in ("borrow", "keep"), copy=copy)
if case == "round trip":
    out = record.to_torch_state_dict(keep_input=False)
    for tensor in out.values():
        tensor += 1
    del tensor
    record = ParametersRecord(out)
values = [int(array.torch()[0, 0].real) for array in record.values()]
print(json.dumps(dict(peak=status("VmHWM:") - interpreter, model=model, left=len(source), values=values)))
"""


def run(case: str, dtype: str) -> dict:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, case, dtype, str(ENTRIES), str(ENTRY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert abs(found["model"] - MODEL) < 0.01 * MODEL  # the model was resident before the record was made
    assert found["values"] == [i % 100 + (case == "round trip") for i in range(ENTRIES)]
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", ["take", "round trip", "borrow"])
def test_taking_and_borrowing_are_flat(case, dtype):
    found = run(case, dtype)
    assert found["peak"] <= 1.02 * MODEL
    assert found["left"] == (ENTRIES if case == "borrow" else 0)


def test_a_conversion_costs_one_entry_at_a_time():
    assert run("conjugate", "complex64")["peak"] <= 1.02 * MODEL + ENTRY


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", ["keep", "held"])
def test_a_live_model_is_doubled_and_no_more(case, dtype):
    assert 1.02 * MODEL + ENTRY < 1.98 * MODEL <= run(case, dtype)["peak"] <= 2.02 * MODEL


def test_the_model_is_large():
    assert MODEL == 2 * GIB
