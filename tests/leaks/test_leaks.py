"""Nothing grows, whatever is done up to 10,000 times (with `make exhaustive`: 10,000 times).

Each scenario is a script that says so, run in a fresh process.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from exhaustive import EXHAUSTIVE

pytestmark = pytest.mark.memory

HERE = Path(__file__).parent
SCENARIOS = sorted(path.stem for path in (HERE / "scenarios").glob("[!_]*.py"))
TESTCAPI = pytest.mark.skipif(
    "CI" not in os.environ and importlib.util.find_spec("_testcapi") is None,
    reason="this Python came without its own tests' module, which fails allocations",
)
CONTROL = {
    "blocks": "blocks",
    "heap": "heap",
    "mapped": "mapped",
    "descriptors": "descriptors",
    "objects": "objects",
    "references": "references",
    "references to a type": "references",
    "references too few": "references",
    "objects in a cycle": "cycles",
}


def run(script: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-W", "ignore:'click:DeprecationWarning", str(HERE / "scenarios" / f"{script}.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=None if EXHAUSTIVE else 500, env={**os.environ, **more})


@pytest.mark.parametrize("scenario", [pytest.param(name, marks=TESTCAPI if name == "no_memory" else ()) for name in SCENARIOS])
def test_nothing_grows(scenario):
    done = run(scenario)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines and all(line.endswith("nothing grows") for line in lines)


def test_a_leak_is_reported_by_each_measure():
    done = run("_control", FLATRECORD_EXHAUSTIVE="0")  # there is no room for 10,000 of each leak
    assert done.returncode == 1, done.stdout + done.stderr
    found = {name: (int(turns), verdict) for turns, name, verdict in re.findall(r"(\d+) turns .* s  (.*?): (.*)", done.stdout)}
    assert found.pop("nothing at all")[1] == "nothing grows"
    assert re.search(r"blocks \+10\b", found.pop("blocks once in a thousand turns")[1])
    assert found.keys() == CONTROL.keys()
    for name, measure in CONTROL.items():
        turns, verdict = found[name]
        (growth,) = re.findall(rf"\b{measure} {'-' if name.endswith('too few') else '[+]'}(\d+)", verdict)
        assert int(growth) >= turns * 0.99, (name, verdict)  # or a few fewer, where some came from a free list


def test_there_are_scenarios():
    assert len(SCENARIOS) > 20
