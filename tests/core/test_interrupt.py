"""Ctrl-C in the middle of one array of many gigabytes: soon, and nothing is lost.

Each case runs in a fresh process. A timer sends the signal 50 ms after the work began; how far the work
came tells how soon the signal was honoured, without asserting a time.
"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.memory

GIB = 1 << 30
SCRIPT = """
import json, signal, sys
import numpy as np
from flatrecord import Array, ParametersRecord

def resident():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

size = 3 << 30
source = {"first": np.arange(3.0), "big": np.empty(size, np.uint8), "last": np.arange(8.0)[::2]}
if sys.argv[1] in ("strided", "popped"):
    source["big"] = source["big"].reshape(-1, 4)[:, ::-1]
held = source["first"]
if sys.argv[1] == "data":
    array = Array(source["big"], copy=False)
elif sys.argv[1] in ("equal", "copied"):
    array, other = Array(source["big"], copy=False), Array(np.empty(size, np.uint8), copy=False)
work = {
    "snapshot": lambda: ParametersRecord(source, keep_input=True),
    "strided": lambda: ParametersRecord(source, keep_input=True),
    "popped": lambda: ParametersRecord(source),
    "data": lambda: array.data,
    "copied": lambda: array.numpy(copy=True),
    "equal": lambda: [array == other for _ in range(100)],
}[sys.argv[1]]
before = resident()
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
interrupted = False
try:
    work()
except KeyboardInterrupt:
    interrupted = True
print(json.dumps(dict(
    interrupted=interrupted,
    copied=resident() - before,
    keys=list(source),
    held=source["first"] is held,
    nbytes=source["big"].nbytes,
    last=source["last"].tolist(),
)))
"""


@pytest.mark.parametrize("work", ["snapshot", "strided", "popped", "data", "copied", "equal"])
def test_ctrl_c_in_the_middle_of_one_array(work):
    done = subprocess.run([sys.executable, "-c", SCRIPT, work], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["interrupted"]
    assert found["copied"] < 1 * GIB  # of 3 GiB
    assert found["keys"] == ["first", "big", "last"] and found["held"]
    assert found["nbytes"] == 3 * GIB and found["last"] == [0, 2, 4, 6]
