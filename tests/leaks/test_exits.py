"""The interpreter exits in peace, whatever is alive by then, each script in a fresh process and under two settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.memory

HERE = Path(__file__).parent
SCRIPTS = sorted(path.stem for path in (HERE / "exits").glob("*.py"))
SETTINGS = {
    "plain": {},
    # Freed memory is overwritten, and what was left open is warned of.
    "strict": {"PYTHONDEVMODE": "1", "PYTHONMALLOC": "debug", "FLATRECORD_THREADS": "4"},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_exit(script, setting):
    # What others' modules warn of while they are imported.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(HERE / "exits" / f"{script}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **SETTINGS[setting]})
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_control_that_exits_in_no_peace():
    control = "import ctypes, atexit; atexit.register(lambda: ctypes.string_at(0)); print('done')"
    done = subprocess.run([sys.executable, "-c", control], capture_output=True, text=True, timeout=120)
    assert done.returncode < 0


def test_there_are_scripts():
    assert len(SCRIPTS) > 5
