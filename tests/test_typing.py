"""The stubs say what the compiled modules do, type checkers make of them what users expect, and every signature can be read."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flatrecord

HERE = Path(__file__).parent
USES = sorted((HERE / "typed").glob("*.py"))
MESSAGE = re.compile(r"(.+?):(\d+): error: (.*)  \[([\w-]+)\]")


def test_stubs_agree_with_the_compiled_modules(tmp_path):
    command = [sys.executable, "-m", "mypy.stubtest", "flatrecord", "--allowlist", str(HERE / "stubtest_allowlist.txt")]
    if sys.version_info >= (3, 12):  # where the entries for the buffer protocol are not needed
        command.append("--ignore-unused-allowlist")
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    installed = Path(flatrecord.__file__).parent
    modules = len([*installed.rglob("*.py"), *installed.rglob("*.so")])
    assert f"no issues found in {modules} modules" in done.stdout


def mismatches(files, folder):
    """Where mypy finds something else than the `# error: CODE` of the lines, as (file, line, codes expected, messages)."""
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unreachable", "--config-file=", "--no-pretty", "--hide-error-context"]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=500, cwd=folder)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = {}
    for line in done.stdout.splitlines():
        if match := MESSAGE.fullmatch(line):
            found.setdefault((Path(folder, match[1]).resolve(), int(match[2])), []).append((match[4], match[3]))
        else:
            assert ": note: " in line or line.startswith(("Found ", "Success: ")), line
    wrong = []
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            expected = line.partition("  # error: ")[2].split()
            messages = found.pop((file.resolve(), number), [])
            if sorted(expected) != sorted(code for code, _ in messages):
                wrong.append((file.name, number, expected, messages))
    return wrong + [(file.name, number, [], messages) for (file, number), messages in found.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where mypy runs and keeps what it has read, which is not the working tree: it reads what is installed."""
    return tmp_path_factory.mktemp("mypy")


def test_type_checkers_say_what_users_expect(folder):
    assert len(USES) >= 4
    assert mismatches(USES, folder) == []


def test_wrong_expectations_are_found(folder):
    lines = [
        "from typing import Any, assert_type",
        "from flatrecord import ParametersRecord",
        "record = ParametersRecord()",
        "assert_type(record['a'], Any)",  # another type
        "ParametersRecord(3)",  # an error that is not expected
        "record.copy()  # error: arg-type",  # one that is, and does not come
        "record.load(3)  # error: call-arg",  # and one of another kind
        "ParametersRecord('abc')  # error: arg-type",
    ]
    (folder / "wrong.py").write_text("\n".join(lines))
    found = mismatches([folder / "wrong.py"], folder)
    assert [(number, expected, [code for code, _ in messages]) for _, number, expected, messages in found] == [
        (4, [], ["assert-type"]),
        (5, [], ["arg-type"]),
        (6, ["arg-type"], []),
        (7, ["call-arg"], ["arg-type"]),
    ]


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
