"""What has changed since another run of `compare`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from .models import GIB
from .paths import PATHS
from .results import Results, processes, ratio, times_model
from .tables import table

PEAK = 0.02  # times the model: peaks that differ by no more are the same
TIME = 0.25  # times over the limit that differ by no more than this share are the same: machines are shared
HEADING = ("path: library", "what", "then", "now")


@dataclass
class Change:
    """One number that is not what it was."""

    where: str
    what: str
    then: str
    now: str
    worse: bool


@dataclass
class Changes:
    """All that has changed, and what stands in the way of comparing."""

    since: str
    notes: list[str] = field(default_factory=list)
    rows: list[Change] = field(default_factory=list)


def changes(then: Results, now: Results) -> Changes:
    """Which peaks, and which times over the limit of their own run, have changed."""
    found = Changes(then["date"])
    sizes = [run["model"]["nbytes"] for run in (then, now)]
    if sizes[0] != sizes[1]:
        gib = " then and ".join(f"{size / GIB:g} GiB" for size in sizes)
        found.notes.append(f"The models differ in size: {gib} now. What is needed beside a model weighs more in a smaller one.")
    for what in ("machine", "versions"):
        differ = [
            f"{name} {then[what].get(name, 'none')} then, {now[what].get(name, 'none')} now"
            for name in dict.fromkeys([*then[what], *now[what]])
            if then[what].get(name) != now[what].get(name)
        ]
        if differ:
            found.notes.append(f"Another {'machine' if what == 'machine' else 'set of libraries'}: {'; '.join(differ)}.")
    for path, contenders in now["paths"].items():
        earlier = then["paths"].get(path, {})
        for name in contenders:
            if name in earlier:
                found.rows += _changed(then, now, path, name)
            else:
                found.notes.append(f"Not measured then: {path}: {name}.")
        gone = [name for name in earlier if name not in contenders]
        found.notes += [f"Not measured now: {path}: {name}." for name in gone]
    return found


def _changed(then: Results, now: Results, path: str, name: str) -> Iterator[Change]:
    where = f"{PATHS[path].title}: {name}"
    old, new = then["paths"][path][name], now["paths"][path][name]
    for (other, before), (_, after) in zip(processes(old), processes(new), strict=True):
        for measure, label in (("resident", "VmHWM"), ("allocated", "memray")):
            peaks = [times_model(result, measure, run["model"]["nbytes"]) for result, run in ((before, then), (after, now))]
            if abs(peaks[1] - peaks[0]) > PEAK:
                what = f"{other + ', ' if other else ''}peak / model, {label}"
                yield Change(where, what, f"{peaks[0]:.2f}", f"{peaks[1]:.2f}", peaks[1] > peaks[0])
    times = ratio(then, path, name), ratio(now, path, name)
    if times[0] is not None and times[1] is not None and not 1 / (1 + TIME) <= times[1] / times[0] <= 1 + TIME:
        yield Change(where, "time / limit", f"{times[0]:.2f}", f"{times[1]:.2f}", times[1] > times[0])


def printed(found: Changes) -> Table:
    """A row a change, what is worse in red."""
    made = table(*HEADING, title=f"Changed since {found.since}")
    for change in found.rows:
        made.add_row(*map(escape, (change.where, change.what, change.then, change.now)), style="red" if change.worse else "green")
    return made


def told(found: Changes) -> str:
    """The same for the report."""
    parts = [
        (
            f"Compared with the run of {found.since}: peaks that differ by more than {PEAK}, and times over the limit of their own "
            f"run that differ by more than {TIME:.0%}."
        )
    ]
    parts += found.notes
    if not found.rows:
        return "\n\n".join([*parts, "Nothing has changed."])
    rows: list[Any] = ["| " + " | ".join(HEADING) + " | |", "| --- | --- | ---: | ---: | --- |"]
    rows += [f"| {row.where} | {row.what} | {row.then} | {row.now} | {'**worse**' if row.worse else 'better'} |" for row in found.rows]
    return "\n\n".join([*parts, "\n".join(rows)])
