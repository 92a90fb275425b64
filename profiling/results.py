"""What `compare` has found: kept as JSON, and how each number is called."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatrecord

from .models import GIB
from .paths import PATHS, Path as Way

FORMAT = "flatrecord-profiling-compare 1"
LIBRARIES = ("numpy", "torch", "flwr", "safetensors", "joblib", "nvflare", "memray", "ml_dtypes", "matplotlib")
Results = dict[str, Any]


def machine() -> dict[str, Any]:
    """What this was measured on, without the name of anything."""
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) << 10
    return {"cores": len(os.sched_getaffinity(0)), "memory": memory, "kernel": platform.release(), "machine": platform.machine()}


def versions() -> dict[str, str]:
    """Releases of Python, of this package and of the libraries that are installed."""
    found = {"python": platform.python_version(), "flatrecord": flatrecord.__version__}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def started(command: str, entries: int, entry: int, passes: int) -> Results:
    """What is known before anything was measured."""
    return {
        "format": FORMAT,
        "command": command,
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "machine": machine(),
        "versions": versions(),
        "model": {"entries": entries, "entry": entry, "nbytes": entries * entry},
        "passes": passes,
        "limits": {},
        "paths": {},
        "missing": {},
        "growth": {},
        "timeline": [],
        "verdict": [],
    }


def read(path: Path) -> Results:
    """The JSON of an earlier run.

    Raises
    ------
    ValueError
        If the file is none.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path} is not the report.json of such a run")
    return found


def processes(result: Results) -> Iterator[tuple[str, Results]]:
    """The processes that a contender is: itself, and the receiver at the other end of a pipe."""
    yield "", result
    if "receiver" in result:
        yield "receiver", result["receiver"]


def limit_of(way: Way, limits: dict[str, float]) -> float | None:
    """Seconds a GiB that this path needs at best; None if no bytes move."""
    return sum(limits[name] for name in way.limit) if way.limit else None


def ratio(results: Results, path: str, name: str) -> float | None:
    """Time as a multiple of the limit of the same run; None where there is no such limit."""
    limit, result = limit_of(PATHS[path], results["limits"]), results["paths"][path][name]
    if limit is None or PATHS[path].named(name).paced:
        return None
    return float(result["seconds"] / result["nbytes"] * GIB / limit)


def times_model(result: Results, measure: str, nbytes: int) -> float:
    """A peak as a multiple of the model."""
    peak: int = result[measure]
    return max(peak, 0) / nbytes
