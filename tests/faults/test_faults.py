"""One thing goes wrong at the n-th moment of each operation, for every n, and nothing is lost.

What is done and what has to be true afterwards say `operations` and `sweep`, which run in fresh processes.

What is promised, and looked for, after each failure: the input and the record are as before, or, after an interrupt that comes when
all is done, as after any run; the error is the right one; no file is half written and none is left over; no descriptor is left
open; the next try succeeds; and the core does not leak.

What cannot be: an interrupt between two lines of Python loses what the first of them gave. So the result of a function is lost if
Ctrl-C comes when it returns, and a descriptor if it comes when os.open() does. With no memory for small objects CPython's, NumPy's
and torch's own code ends the process now and then. So operations that are Python code are tried in child processes there, and what
ended such a child has to be theirs.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from faults.injection import environment

# A sanitizer has an allocator of its own; and every moment of files without memory, each tried in a process, takes some minutes.
pytestmark = [pytest.mark.memory, pytest.mark.timeout(1600)]

HOOK = pytest.mark.skipif(
    "CI" not in os.environ and importlib.util.find_spec("_testcapi") is None,
    reason="this Python came without its own tests' module, which makes allocations fail",
)


def swept(injector, kind: str, group: str, folder, *only: str, **more: str) -> list[dict]:
    """What a sweep reports, operation by operation."""
    command = [sys.executable, "-X", "faulthandler", "-m", "faults.sweep", kind, group, str(folder), *only]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, env=environment(injector, **more))
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(found: list[dict], least: int) -> None:
    """Nothing is wrong, and it was looked for; few processes were ended by code that is not ours."""
    assert {report["operation"]: report["problems"] for report in found if report["problems"]} == {}
    attempts = sum(report["attempts"] for report in found)
    assert attempts >= least and sum(report["crashes"] for report in found) <= attempts / 10
    assert len(found) >= 12


@HOOK
@pytest.mark.parametrize("group, least", [("core", 4000), ("torch", 1000), ("files", 200), ("flower", 300)])
def test_no_memory_for_an_object_of_pythons(injector, group, least, tmp_path):
    found = swept(injector, "hook", group, tmp_path)
    check(found, least)
    assert sum(report["errors"].get("MemoryError", 0) for report in found) >= least * 0.8


@pytest.mark.parametrize("group", ["core", "files", "flower"])
def test_no_memory_for_a_block(injector, group, tmp_path):
    """From malloc and mmap, as NumPy and we have them for arrays."""
    check(swept(injector, "memory", group, tmp_path), {"core": 25, "files": 200, "flower": 100}[group])


def test_the_error_names_the_key_whose_block_there_is_no_memory_for(injector, tmp_path):
    found = [report for report in swept(injector, "maps", "core", tmp_path) if " large " in report["operation"] and report["attempts"]]
    assert len(found) > 6
    for report in found:
        assert not report["problems"]
        if report["operation"].startswith(("enter", "leave")):
            assert report["named"] == sum(report["errors"].values()) > 0, report


@pytest.mark.parametrize("group, least", [("core", 4000), ("torch", 1500), ("files", 1000), ("flower", 1000)])
def test_ctrl_c_at_every_allocation_and_system_call(injector, group, least, tmp_path):
    check(swept(injector, "interrupts", group, tmp_path, PYTHONMALLOC="malloc"), least)


@pytest.mark.parametrize("group", ["files", "flower"])
def test_ctrl_c_at_every_line_of_ours(injector, group, tmp_path):
    check(swept(injector, "lines", group, tmp_path), 500)


@pytest.mark.parametrize("kind", ["full", "broken", "short", "all short", "retried", "often retried"])
def test_every_system_call(kind, injector, tmp_path):
    found = swept(injector, kind, "files", tmp_path)
    assert {report["operation"]: report["problems"] for report in found if report["problems"]} == {}
    saves = [report for report in found if report["operation"].startswith("save")]
    assert saves and all(report["attempts"] > 0 for report in saves)
    if kind in ("full", "broken"):
        assert all(report["errors"].get("OSError", 0) > 0 for report in saves)
    else:  # is nobody's business
        assert all(report["swallowed"] == report["attempts"] for report in found)


@pytest.mark.parametrize(
    "kind, control, words",
    [
        pytest.param("hook", "losing", "the input is changed", marks=HOOK),
        pytest.param("hook", "leaking", "leaks", marks=HOOK),
        pytest.param("hook", "leaving_open", "1 descriptors are left open", marks=HOOK),
        pytest.param("hook", "lying", "came through, and gave 2 in place of 1", marks=HOOK),
        pytest.param("hook", "complaining", "not the right error", marks=HOOK),
        ("memory", "losing", "the input is changed"),
        ("memory", "leaking", "leaks"),
        ("memory", "leaving_open", "1 descriptors are left open"),
        ("interrupts", "losing", "the input is changed"),
        ("interrupts", "complaining", "not the right error"),
        ("full", "littering", "the input is changed"),
        ("broken", "littering", "the input is changed"),
        ("short", "littering", "came through, and gave"),
    ],
)
def test_the_sweep_is_awake(kind, control, words, injector, tmp_path):
    """Each control is wrong in one way."""
    (report,) = swept(injector, kind, "controls", tmp_path, control, PYTHONMALLOC="malloc" if kind in ("memory", "interrupts") else "")
    assert report["problems"] and any(words in problem for problem in report["problems"]), report
