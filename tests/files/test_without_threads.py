"""Files work where no thread can be started."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from flatrecord.safetensors import load, save
from flatrecord.threads import helpers

MIB = 1 << 20

AT_EXIT = """
import atexit, sys
import numpy as np
from flatrecord.safetensors import load, save

def at_exit():
    save({"a": np.ones(1 << 20), "b": np.zeros(40 << 20, "u1")}, sys.argv[1], checksum=True)
    record = load(sys.argv[1], mmap=False)
    record.verify(contents=True)
    print(record.count_memory())

atexit.register(at_exit)
"""


def test_a_checkpoint_at_exit(tmp_path):
    path = tmp_path / "last.safetensors"
    ran = subprocess.run([sys.executable, "-c", AT_EXIT, path], capture_output=True, text=True, timeout=120)
    assert ran.stderr == ""
    assert ran.stdout == f"{48 * MIB}\n"
    load(path).verify(contents=True)


def test_at_the_limit_of_threads(tmp_path, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    save({"a": np.full(40 * MIB, 3, "u1")}, tmp_path / "x", checksum=True)
    record = load(tmp_path / "x", mmap=False)
    record.verify(contents=True)
    assert record["a"].numpy().min() == 3


def test_an_error_comes_where_the_result_is_asked_for(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no")))
    with helpers(2, "test") as pool:
        future = pool.submit(int, "x")
        with pytest.raises(ValueError, match="'x'"):
            future.result()
        assert list(pool.map(int, ["1", "2"])) == [1, 2]
