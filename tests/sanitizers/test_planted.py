"""The tools that look for bugs in the compiled core are awake.

Each finds those that were planted for it, and nothing where there is none.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from sanitizers import checked

FOUND_BY_SANITIZERS = {
    "overflow": "heap-buffer-overflow",
    "use_after_free": "heap-use-after-free",
    "one_reference_less": "heap-use-after-free",
    "leak": "Direct leak of 12345 byte(s) in 1 object(s)",
    "one_reference_more": "Direct leak of 12378 byte(s) in 1 object(s)",
    "undefined": "signed integer overflow",
}
FOUND_BY_VALGRIND = {
    "overflow": "Invalid write of size 1",
    "use_after_free": "Invalid read of size 1",
    "one_reference_less": "Invalid read of size",
    "leak": "12,345 bytes in 1 blocks are definitely lost",
    "one_reference_more": "12,378 bytes in 1 blocks are definitely lost",
    "uninitialised": "Conditional jump or move depends on uninitialised value(s)",
}
WITHOUT_A_BUG = "import numpy; numpy.arange(1000.0).tobytes(); bytes(12345)"


def build(folder: Path, *flags: str) -> Path:
    """Compile the module into `folder`."""
    target = folder / f"planted{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_path("include")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-g", "-w", *flags, f"-I{include}", str(checked.HERE / "planted.c"), "-o", str(target)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    return build(tmp_path_factory.mktemp("sanitized"), *flags)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return build(tmp_path_factory.mktemp("plain"))


def run(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{folder}:{environment['PYTHONPATH']}"
    return subprocess.run(command, env=os.environ | environment | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("bug", FOUND_BY_SANITIZERS)
def test_the_sanitizers_find(bug, sanitized):
    done = run([sys.executable, "-c", f"import planted; planted.{bug}()"], checked.sanitizers(), sanitized)
    assert FOUND_BY_SANITIZERS[bug] in done.stderr
    assert done.returncode == checked.FAILED


def test_the_sanitizers_find_nothing_where_there_is_no_bug(sanitized):
    done = run([sys.executable, "-c", f"import planted; {WITHOUT_A_BUG}"], checked.sanitizers(), sanitized)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_leak_in_a_test_is_found_and_one_while_tests_are_collected_is_not(sanitized, tmp_path):
    test = tmp_path / "test_leak.py"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "leaks_of_tests"),
        *("-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(test)),
    ]
    environment = checked.sanitizers()
    test.write_text("import planted\nplanted.leak()\ndef test():\n    pass\n")
    done = run(command, environment, sanitized)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stderr
    test.write_text("import planted\ndef test():\n    planted.leak()\n")
    done = run(command, environment, sanitized)
    assert FOUND_BY_SANITIZERS["leak"] in done.stderr and "1 passed" in done.stdout
    assert done.returncode == checked.FAILED


# `make test` asks for gcc and make alone; `make valgrind` and CI ask for Valgrind too.
NEEDS_VALGRIND = pytest.mark.skipif("CI" not in os.environ and shutil.which("valgrind") is None, reason="Valgrind is not installed")


@NEEDS_VALGRIND
@pytest.mark.parametrize("bug", FOUND_BY_VALGRIND)
def test_valgrind_finds(bug, plain):
    command = [*checked.VALGRIND, sys.executable, "-c", f"import planted; planted.{bug}()"]
    done = run(command, checked.valgrind(), plain)
    assert FOUND_BY_VALGRIND[bug] in done.stderr and "planted.c" in done.stderr
    assert done.returncode == checked.FAILED


@NEEDS_VALGRIND
def test_valgrind_finds_nothing_where_there_is_no_bug(plain):
    done = run([*checked.VALGRIND, sys.executable, "-c", f"import planted; {WITHOUT_A_BUG}"], checked.valgrind(), plain)
    assert (done.returncode, done.stderr) == (0, "")
