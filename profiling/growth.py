"""How the cost grows: with the number of entries at one size, and with the size at one number of entries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .models import GIB
from .paths import PATHS, Size
from .process import ENVIRONMENT, available, run

MIB = 1 << 20
# Whose cost is looked at, and one who is known to need a second model: a bound that nobody could break would say nothing.
GROWING = {
    "take": "flatrecord, ndarrays",
    "to-arrays": "flatrecord, keep_input=False",
    "save": "flatrecord",
    "load": "flatrecord",
    "pipe": "flatrecord",
    "wire-out": "flatrecord, Flower's objects",
    "wire-in": "flatrecord, Flower's objects",
}
CONTROL = ("snapshot", "copy.deepcopy")
ALLOWED = 16 * MIB  # that a path may take more at the largest size than at the smallest; what is under way comes and goes
NEEDED = {"load": 2.2, "save": 2.2, "wire-in": 2.2, "pipe": 2.2, "snapshot": 2.2}  # times the model, with files in the page cache


class Range(NamedTuple):
    """What is measured: each number of entries at one size, and each size with one number of entries."""

    entries: tuple[int, ...]
    entries_nbytes: int
    sizes: tuple[int, ...]  # bytes
    sizes_entries: int
    paths: tuple[str, ...]
    passes: int

    def points(self) -> Iterator[tuple[str, str, str, Size]]:
        """Axis, path, contender and size of the model; the control grows with the size alone."""
        for path in self.paths:
            for count in self.entries:
                yield "entries", path, GROWING[path], Size(count, self.entries_nbytes // count // 4 * 4)
        for path, name in (*((path, GROWING[path]) for path in self.paths), CONTROL):
            for nbytes in self.sizes:
                yield "sizes", path, name, Size(self.sizes_entries, nbytes // self.sizes_entries)


FULL = Range(tuple(10**power for power in range(6)), 256 * MIB, tuple(GIB // 4 << power for power in range(6)), 64, tuple(GROWING), 2)
QUICK = Range((1, 10_000), 32 * MIB, (32 * MIB, 128 * MIB), 4, ("take", "save", "wire-out"), 1)


def too_large(path: str, size: Size, folder: Path) -> str:
    """Why a point is left out; empty if it is not."""
    needed = NEEDED.get(path, 1.2) * size.nbytes + GIB // 2
    if needed > available():
        return f"{needed / GIB:.1f} GiB of memory needed"
    disk = os.statvfs(folder)
    if path in ("save", "load", "wire-in") and disk.f_bavail * disk.f_frsize < 2.2 * size.nbytes:
        return f"{2.2 * size.nbytes / GIB:.1f} GiB of disk needed"
    return ""


def point(path: str, name: str, size: Size, folder: Path, passes: int) -> dict[str, Any]:
    """What one model costs on one path: seconds, and bytes beside the model."""
    way, contender, file = PATHS[path], PATHS[path].named(name), folder / "growth"
    if contender.before:
        run("before", path, name, *size, file)
    result = run("compare", path, name, *size, passes if size.nbytes <= GIB else 1, file, "alone", environment=ENVIRONMENT).result
    for left in folder.glob("growth*"):
        left.unlink()
    found = {"entries": size.entries, "nbytes": size.nbytes, "seconds": result["seconds"], "equal": result["equal"]}
    # Beside the model and what was resident for it before, such as the ndarrays themselves.
    ends = [(result, way.makes_model)] + ([(result["receiver"], True)] if "receiver" in result else [])
    return found | {
        "resident": max(end["beside"] - makes * size.nbytes for end, makes in ends),
        "allocated": max(end["allocated"] - makes * size.nbytes for end, makes in ends),
    }


def slope(points: list[dict[str, Any]], axis: str, measure: str) -> float:
    """How much more of `measure` a further entry, or a further byte, costs: a straight line through all points."""
    where = [point["entries" if axis == "entries" else "nbytes"] for point in points]
    return float(np.polyfit(where, [point[measure] for point in points], 1)[0]) if len(set(where)) > 1 else 0.0


def grown(points: list[dict[str, Any]], measure: str) -> int:
    """Bytes beside the model that the largest needs more than the smallest."""
    return int(points[-1][measure] - points[0][measure])


def is_flat(points: list[dict[str, Any]]) -> bool:
    """Whether what is needed beside the model stays the same while the model grows."""
    return all(grown(points, measure) <= ALLOWED for measure in ("resident", "allocated"))
