"""The stubs say what the compiled modules do, and every signature can be read."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import flatrecord

HERE = Path(__file__).parent


def test_stubs_agree_with_the_compiled_modules(tmp_path):
    command = [sys.executable, "-m", "mypy.stubtest", "flatrecord"]
    command += ["--allowlist", str(HERE / "stubtest_allowlist.txt"), "--ignore-unused-allowlist"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cls", [flatrecord.Array, flatrecord.ParametersRecord, flatrecord.ArrayRecord])
def test_every_public_method_has_a_docstring_and_a_signature(cls):
    assert cls.__doc__ and "--" not in cls.__doc__.split("\n")[1]
    assert "copy" in inspect.signature(cls).parameters
    for name, member in vars(cls).items():
        if not name.startswith("_"):
            assert inspect.getdoc(member), name
            if callable(member):
                inspect.signature(member)


def test_typed():
    assert (Path(flatrecord.__file__).parent / "py.typed").exists()
