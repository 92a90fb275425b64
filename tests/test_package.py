"""What is shipped: one stripped abi3 wheel without sources, and an sdist that builds."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPREHENSION = re.compile(r"\[([^\[\]]+?) for .+? in .+?\]")
MODULES = {
    *("workers", "copying", "strided", "buffer", "foreign", "holders", "ownership", "npy", "views", "segments", "array"),
    *("parts", "errors", "entries", "release", "absorb", "ties", "record"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel that is built from the sdist that is built from this tree."""
    out, tree = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("tree")
    # Of a copy, so that a build of this tree may go on at the same time.
    shutil.copytree(
        ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", ".*_cache"), dirs_exist_ok=True
    )
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    switches = {name: "0" for name in os.environ if name.startswith("FLATRECORD_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env={**os.environ, **switches})
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def test_one_wheel_for_all_versions(wheel):
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as file:
        compiled = sum(entry.compress_size for entry in file.infolist() if entry.filename.endswith(".so"))
    assert compiled < 500_000  # stripped


def test_the_wheel_holds_no_sources(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert {Path(name).name for name in names if name.endswith(".so")} == {f"{name}.abi3.so" for name in MODULES}
    assert {Path(name).stem for name in names if name.endswith(".pyi")} == MODULES
    assert "flatrecord/py.typed" in names
    assert not [name for name in names if name.endswith((".pyx", ".pxd", ".c", ".h"))]
    assert not [name for name in names if not name.startswith(("flatrecord/", "flatrecord-", "pytest_flatrecord.py"))]


def test_the_wheel_brings_the_pytest_plugin(wheel):
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = (name for name in file.namelist() if name.endswith("entry_points.txt"))
        assert b"[pytest11]\nflatrecord = pytest_flatrecord\n" in file.read(metadata)
        assert {"pytest_flatrecord.py", "flatrecord/testing.py", "flatrecord/profile/tracked.py"} <= set(file.namelist())


def test_the_modules_are_stripped_and_have_no_runpath(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path)
    modules = list(tmp_path.rglob("*.so"))
    assert modules
    for module in modules:
        described = subprocess.run(["readelf", "-dSW", module], capture_output=True, text=True, check=True).stdout
        assert "RPATH" not in described and "RUNPATH" not in described
        assert ".debug_info" not in described and ".symtab" not in described
        assert "libpython" not in described


def test_the_sdist_holds_the_sources(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    for module in MODULES:
        for suffix in ("pyx", "pxd", "pyi"):
            assert f"src/flatrecord/_core/{module}.{suffix}" in names
    assert {"src/flatrecord/_core/platform.h", "setup.py", "LICENSE", "tests/conftest.py"} <= names
    # What was made of the sources is not among them; these are sources themselves.
    ours = {"fuzz/coverage.c", "profiling/counts.c", "tests/faults/injector.c", "tests/sanitizers/planted.c"}
    assert {name for name in names if name.endswith((".c", ".so"))} == ours


def test_no_list_comprehension_makes_its_items():
    # Where there is no memory to append such an item, code of Cython 3.3.1 lets go of it twice. A name's value it does not.
    sources = list((ROOT / "src/flatrecord/_core").glob("*.pyx"))
    assert len(sources) > 15
    found = [(path.name, match[0]) for path in sources for match in COMPREHENSION.finditer(path.read_text()) if not match[1].isidentifier()]
    assert found == []
