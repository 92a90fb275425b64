"""The examples run, as a reader would run them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
# What is in a package is imported by the script beside it.
SCRIPTS = sorted(path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*.py") if not (path.parent / "__init__.py").exists())
WITH_ARGUMENTS = {Path("flower-llm/run.py")}  # which have tests of their own

pytestmark = pytest.mark.memory  # real processes do not run under a sanitizer


@pytest.mark.parametrize("script", sorted(set(SCRIPTS) - WITH_ARGUMENTS), ids=str)
def test_a_script(script):
    done = subprocess.run([sys.executable, "-W", "error", EXAMPLES / script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_example_has_a_script_that_is_run():
    examples = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert len(examples) >= 2 and {script.parts[0] for script in SCRIPTS} == examples and set(SCRIPTS) >= WITH_ARGUMENTS


def test_flower_llm():
    command = [sys.executable, EXAMPLES / "flower-llm" / "run.py", "--steps", "5", "--batch", "4", "--timeout", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The same losses, to the last bit: yes" in done.stdout
    losses = re.findall(r"^ ?(\d) +(\d\.\d{4}) ", done.stdout, re.MULTILINE)
    assert [number for number, _ in losses] == ["0", "1", "2", "3"] and float(losses[3][1]) < float(losses[0][1])
    for process in ("superlink", "serverapp", "supernode of node 0", "clientapp of node 1"):
        assert process in done.stdout


def test_flower_llm_says_what_is_wrong():
    command = [sys.executable, EXAMPLES / "flower-llm" / "run.py", "--records", "flat", "--width", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "100" in done.stdout + done.stderr
