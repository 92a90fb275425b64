"""Which releases of Flower this adapter knows."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

FIRST, BEYOND = (1, 36), (1, 43)  # what we build on is the same in all of these, file by file
KNOWN = "flwr 1.36 to 1.42"


def flower_version() -> str | None:
    """The installed release of flwr; None if there is none."""
    try:
        return version("flwr")
    except PackageNotFoundError:
        return None


def is_known(release: str) -> bool:
    """Whether `release`, such as ``1.41.0``, is one of `KNOWN`."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and FIRST <= (int(found[1]), int(found[2])) < BEYOND


def require() -> None:
    """Raise an ImportError unless a release is installed that this adapter knows."""
    release = flower_version()
    if release is None:
        raise ImportError(f"flatrecord.flower needs Flower: pip install 'flatrecord[flower]' ({KNOWN})")
    if not is_known(release):
        raise ImportError(f"flatrecord.flower is written for {KNOWN}, found {release}")
