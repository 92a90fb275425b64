"""Whether every value was right, and whether ours was as flat as it says."""

from __future__ import annotations

from collections.abc import Iterator

from . import growth
from .paths import PATHS
from .results import Results, processes

Verdict = list[tuple[str, bool]]


def judged(found: Results) -> Verdict:
    """What was looked for, and whether it is so."""
    verdict: Verdict = []
    wrong = [*_wrong(found)]
    verdict.append(("Every library gave the right values" + (f" (not {', '.join(wrong)})" if wrong else ""), not wrong))
    if found["paths"]:
        fat = [*_not_flat(found)]
        verdict.append(("flatrecord took no more memory than it may" + (f" (not {', '.join(fat)})" if fat else ""), not fat))
    sizes = {name: kept["points"] for name, kept in found["growth"].get("sizes", {}).items() if "flatrecord" in name}
    if sizes:
        mib = growth.ALLOWED >> 20
        grows = [name for name, points in sizes.items() if points and not growth.is_flat(points)]
        what = f"What flatrecord needs beside the model does not grow with it (by more than {mib} MiB from the smallest to the largest)"
        verdict.append((what + (f" (not {', '.join(grows)})" if grows else ""), not grows))
    return verdict


def _wrong(found: Results) -> Iterator[str]:
    for path, contenders in found["paths"].items():
        for name, result in contenders.items():
            if not result["equal"]:
                yield f"{path}: {name}"
    for axis, kept in found["growth"].items():
        for name, line in kept.items():
            if not all(point["equal"] for point in line["points"]):
                yield f"growth with {axis}, {name}"


def _not_flat(found: Results) -> Iterator[str]:
    nbytes = found["model"]["nbytes"]
    for path, contenders in found["paths"].items():
        for name, result in contenders.items():
            contender = PATHS[path].named(name)
            if contender.bound is None:
                continue
            bounds = {"highest": contender.bound, "allocated": contender.heap_bound or contender.bound}
            for other, process in processes(result):
                for measure, bound in bounds.items():
                    if process[measure] > bound * nbytes + PATHS[path].slack:
                        yield f"{path}: {name}{', ' + other if other else ''} with {process[measure] / nbytes:.2f}"
