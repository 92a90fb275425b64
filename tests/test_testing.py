"""flatrecord.testing and the pytest plugin: what they measure, what they refuse, and what they say."""

import os
import re
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import memray
import numpy as np
import pytest

import flatrecord
from flatrecord.testing import assert_flat, in_fresh_process, measure_peak

pytestmark = pytest.mark.memory

MIB = 1 << 20
MODEL, ENTRIES = 64 * MIB, 16


def make() -> dict[str, np.ndarray]:
    return {f"layer{i}": np.full(MODEL // ENTRIES, i, np.uint8) for i in range(ENTRIES)}


def duplicated(model) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in model.items()}


def test_a_take_is_flat():
    model = make()
    with assert_flat(MODEL, 0.01) as peak:
        flatrecord.ParametersRecord(model)
    assert 0 < peak.nbytes < MIB and not peak.resident


def test_a_duplicate_is_not_and_the_error_names_its_line():
    model = make()
    with pytest.raises(AssertionError) as caught, assert_flat(MODEL):
        duplicated(model)
    message = str(caught.value)
    assert message.startswith("the block held 64.00 MiB at its peak, 1.00 models of 64.00 MiB; allowed are 0.05, which is ")
    assert " bytes less\nheld at the peak by:\n" in message
    line = Path(__file__).read_text().splitlines().index("    return {name: array.copy() for name, array in model.items()}") + 1
    assert f"64.00 MiB   1.00  tests/test_testing.py:{line} < tests/test_testing.py:" in message.replace(str(Path.cwd()) + "/", "")
    assert "return {name: array.copy() for name, array in model.items()}\n" in message and "all others" in message


def test_what_a_block_brings_into_memory_is_allowed_by_copies():
    with assert_flat(MODEL, 0.01, copies=1):
        make()
    with pytest.raises(AssertionError, match=r"2.00 models of 64.00 MiB; allowed are 1.01"), assert_flat(MODEL, 0.01, copies=1):
        duplicated(make())


def test_the_peak_counts_and_not_what_is_left():
    with measure_peak() as peak:
        del (x := [make()])[:], x
    assert peak.nbytes == pytest.approx(MODEL, rel=0.001)
    assert peak.held[0][0].place.function == "make" and peak.held[0][1] == pytest.approx(MODEL, rel=0.001)


def test_an_error_in_the_block_comes_through():
    with pytest.raises(KeyError, match="mine"), assert_flat(MODEL) as peak:
        duplicated(make())
        raise KeyError("mine")
    assert peak.nbytes == pytest.approx(2 * MODEL, rel=0.001)


@pytest.mark.parametrize("resident", [False, True])
def test_it_refuses_where_memray_is_tracking(resident, tmp_path):
    refused = pytest.raises(RuntimeError, match="memray is tracking this process already")
    with memray.Tracker(tmp_path / "x.bin"), refused, assert_flat(MODEL, resident=resident):
        pass
    with measure_peak():  # which is over now
        pass


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_it_refuses_within_another_and_beside_one(outer, inner):
    with measure_peak(resident=outer) as peak:
        np.ones(MODEL, np.uint8)
        with pytest.raises(RuntimeError, match="another block of this process is being measured"), measure_peak(resident=inner):
            pass
        with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="another block of this process is being measured"):
            pool.submit(measure_peak(resident=inner).__enter__).result()
    assert outer or peak.nbytes >= MODEL  # a process that is not fresh may have the memory already


def test_it_is_no_decorator():
    with pytest.raises(TypeError, match="not callable"):

        @assert_flat(MODEL)
        async def test():  # which would be left before it has run
            pass


def test_a_fork_that_leaves_the_block_spoils_nothing():
    with measure_peak() as peak:
        array = np.ones(MODEL, np.uint8)
        child = os.fork()
    if child == 0:
        os._exit(0 if peak.nbytes == -1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert peak.nbytes == pytest.approx(array.nbytes, rel=0.01)


def test_imports_in_the_block_have_a_name():
    script = "from flatrecord.testing import assert_flat\nwith assert_flat(1 << 20):\n    import torch\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and re.search(r"MiB +\d\d\.\d\d +libraries that were imported\n", done.stderr), done.stderr


@pytest.mark.parametrize("resident", [False, True])
def test_it_refuses_where_tracemalloc_is_tracing(resident):
    tracemalloc.start()
    try:
        with pytest.raises(RuntimeError, match="tracemalloc is tracing"), measure_peak(resident=resident):
            pass
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "model_bytes, tolerance, copies", [(0, 0.05, 0), (-1, 0.05, 0), (MODEL, -0.1, 0), (MODEL, 0.05, -1), (MODEL, float("nan"), 0)]
)
def test_it_refuses_sizes_that_are_none(model_bytes, tolerance, copies):
    with pytest.raises(ValueError, match="model_bytes must be above 0"), assert_flat(model_bytes, tolerance, copies=copies):
        pass


# ------------------------------------------------------------------------------------------ resident


def take_resident() -> int:
    model = make()
    with assert_flat(MODEL, resident=True) as peak:
        record = flatrecord.ParametersRecord(model)
    assert len(record) == ENTRIES and peak.resident
    return peak.nbytes


def duplicate_resident() -> None:
    model = make()
    with assert_flat(MODEL, resident=True):
        duplicated(model)


def untouched_resident() -> int:
    with measure_peak(resident=True) as peak:
        np.empty(MODEL, np.uint8)
    return peak.nbytes


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_resident_memory_in_a_fresh_process():
    assert in_fresh_process(take_resident) < 3 * MIB
    with pytest.raises(AssertionError, match=r"^resident memory grew by 6\d\.\d\d MiB at its peak, (1\.0|0\.9)\d models"):
        in_fresh_process(duplicate_resident)
    assert in_fresh_process(untouched_resident) < 3 * MIB  # memray would count it


def test_a_fresh_process_that_is_killed():
    with pytest.raises(RuntimeError, match="in which kill_myself was called ended before it returned"):
        in_fresh_process(kill_myself)


# -------------------------------------------------------------------------------------------- pytest

SUITE = """
import numpy as np

def test_measured(peak_memory):
    with peak_memory() as peak:
        np.empty(3 << 20, np.uint8)
    assert 3 << 20 <= peak.nbytes < 4 << 20

def test_flat(peak_memory):
    with peak_memory(5 << 20, 0.1, copies=1):
        np.empty(5 << 20, np.uint8)

def test_doubled(peak_memory):
    with peak_memory(5 << 20, tolerance=0.1):
        np.empty(5 << 20, np.uint8)

def test_nothing(peak_memory):
    with peak_memory(tolerance=0.1):
        pass

def test_resident(peak_memory):
    with peak_memory(resident=True) as peak:
        x = np.ones(32 << 20, np.uint8)
    assert peak.nbytes > 30 << 20
"""


def test_the_plugin(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-v", "--junit-xml=report.xml", "test_suite.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1 and "2 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "AssertionError: the block held 5.00 MiB at its peak, 1.00 models of 5.00 MiB; allowed are 0.1" in done.stdout
    assert "TypeError: peak_memory needs model_bytes" in done.stdout
    assert "np.empty(5 << 20, np.uint8)" in done.stdout and "flatrecord/testing.py" not in done.stdout.split("short test summary")[0]
    listed = done.stdout.split("= peak memory =")[1]
    assert "3.00 MiB  test_suite.py::test_measured" in listed and "5.00 MiB  test_suite.py::test_doubled" in listed
    assert (tmp_path / "report.xml").read_text().count('<property name="peak_memory_bytes" value="') == 4


def test_the_plugin_costs_nothing_where_it_is_not_used(tmp_path):
    (tmp_path / "test_suite.py").write_text("import sys\ndef test(): assert not {'numpy', 'memray', 'flatrecord'} & sys.modules.keys()\n")
    command = [sys.executable, "-m", "pytest", "-q", "test_suite.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0 and "peak memory" not in done.stdout, done.stdout + done.stderr
