"""What an installation brings along, and what it says where an extra is missing."""

import re
import subprocess
import sys
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest

import flatrecord

EXTRAS = {"torch", "flower", "cli", "cross", "profile", "all", "test", "suite", "demo", "docs", "lint", "release", "dev", "fuzz"}
ADVICE = re.compile(r"pip install '?flatrecord\[([\w,]+)\]")


def requirements(extra: str | None) -> set[str]:
    """The projects that the base or an extra asks for by name, those of the extras that it names included."""
    marker = re.compile(r"; .*extra == \"(\w+)\"")
    found = set()
    for text in requires("flatrecord"):
        where = marker.search(text)
        if (where[1] if where else None) != extra:
            continue
        name, others = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", text).groups()
        found |= set().union(*map(requirements, others.split(","))) if name == "flatrecord" else {name}
    return found


def test_the_base_asks_for_numpy_and_ml_dtypes_only():
    assert requirements(None) == {"numpy", "ml_dtypes"}


def test_what_the_extras_bring():
    assert set(metadata("flatrecord").get_all("Provides-Extra")) == EXTRAS
    assert requirements("torch") == {"torch"} and requirements("flower") == {"flwr"}
    assert requirements("profile") == {"memray", "matplotlib", "rich"}
    assert requirements("all") == {"torch", "flwr", "memray", "matplotlib", "rich"}
    assert not requirements("test") & {"torch", "flwr"}


def test_every_extra_that_we_tell_people_to_install_is_one():
    told = set()
    package = Path(flatrecord.__file__).parent
    for path in [
        *package.rglob("*.py"),
        *Path(__file__).parent.parent.glob("*.md"),
        *Path(__file__).parent.parent.glob("[de][xo]*/**/*.md"),
    ]:
        told |= {name for names in ADVICE.findall(path.read_text()) for name in names.split(",")}
    assert {"torch", "flower", "cli", "profile"} - {"torch", "flower"} <= told <= EXTRAS


# What each of them says without its extra is tested beside it, but for these.
@pytest.mark.parametrize(
    "missing, statement, advice",
    [
        ("torch", "import flatrecord; flatrecord.ArrayRecord.from_torch_state_dict({})", "torch"),
        ("torch", "from flatrecord.convert import convert; convert('a.pt', 'b.safetensors')", "torch"),
        ("flwr", "import flatrecord.flower", "flower"),
        ("memray", "from flatrecord.testing import measure_peak\nwith measure_peak(): pass", "profile"),
        ("memray", "from flatrecord.cli import main; raise SystemExit(main(['profile', 'a.py']))", "profile"),
    ],
)
def test_a_missing_extra_says_what_to_install(missing, statement, advice, tmp_path):
    (tmp_path / "a.pt").write_bytes(b"")
    (tmp_path / "a.py").write_text("")
    # As if it were not installed: neither found by an import nor in the metadata.
    hide = f"""
import importlib.metadata, importlib.util, sys
sys.modules[{missing!r}] = None
found, read = importlib.util.find_spec, importlib.metadata.version
def find_spec(name, *rest): return None if name.partition(".")[0] == {missing!r} else found(name, *rest)
def version(name):
    if name == {missing!r}: raise importlib.metadata.PackageNotFoundError(name)
    return read(name)
importlib.util.find_spec, importlib.metadata.version = find_spec, version
"""
    done = subprocess.run([sys.executable, "-c", hide + statement], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 1
    assert f"pip install 'flatrecord[{advice}]'" in done.stderr


def test_an_import_takes_no_framework_along():
    script = """
import sys, numpy
before = set(sys.modules)
import flatrecord
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert {name for name in printed.split() if not name.startswith(("_cython", "cython"))} == {"flatrecord"}
