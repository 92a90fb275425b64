"""Print what pyproject.toml asks for to build, run and use one extra, a requirement a line.

The Makefile installs these before it builds, so that the build needs no environment of its own.
"""

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def requirements(extra: str) -> list[str]:
    """The requirements of the build, the package and `extra`, with the extras that `extra` names."""
    table = tomllib.loads(PROJECT.read_text())
    own = table["project"]["name"] + "["
    found = [*table["build-system"]["requires"], *table["project"]["dependencies"]]
    for requirement in table["project"]["optional-dependencies"][extra]:
        if requirement.startswith(own):
            for other in requirement.removeprefix(own).rstrip("]").split(","):
                found += requirements(other)
        else:
            found.append(requirement)
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    print(*requirements(sys.argv[1]), sep="\n")
