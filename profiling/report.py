"""What `compare` has found, for people who have never heard of it: ``report.md``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import against, growth
from .limits import LIMITS
from .models import GIB
from .paths import PATHS
from .results import Results, limit_of, ratio, times_model

MIB, KIB = 1 << 20, 1 << 10
AFTER = ("save", "pipe")  # paths on which a library may let go of the model
Rows = tuple[list[str], list[list[str]]]


def rows_of(found: Results, path: str) -> Rows:
    """Headings and a row a library, of one path."""
    nbytes = found["model"]["nbytes"]
    results = found["paths"][path]
    pipe = any("receiver" in result for result in results.values())
    heading = ["", "sender", "(memray)"] if pipe else ["", "VmHWM", "memray"]
    heading += ["after"] if path in AFTER else []
    heading += ["receiver", "(memray)"] if pipe else []
    limited = bool(PATHS[path].limit)
    heading += ["seconds", "× limit"] if limited else ["seconds"]
    rows = []
    for name, result in results.items():
        cells = [f"{times_model(result, measure, nbytes):.2f}" for measure in ("resident", "allocated")]
        cells += [f"{times_model(result, 'end', nbytes):.2f}"] if path in AFTER else []
        if pipe:
            cells += [f"{times_model(result['receiver'], measure, nbytes):.2f}" for measure in ("resident", "allocated")]
        cells.append(seconds(result["seconds"]))
        if limited:
            limit = ratio(found, path, name)
            cells.append("" if limit is None else f"{limit:.1f}")
        rows.append([name, *cells])
    for name, reason in found["missing"].get(path, {}).items():
        rows.append([name, *[""] * (len(heading) - 2), reason])
    return heading, rows


def growth_rows(grown: dict[str, Any]) -> Rows:
    """Headings and a row a path: what one entry more and one GiB more cost."""
    heading = ["", "µs/entry", "KiB/entry", "ms/GiB", "MiB/GiB", "grown, MiB", "flat"]
    names = dict.fromkeys([*grown.get("entries", {}), *grown.get("sizes", {})])
    rows = []
    for name in names:
        cells = []
        entries = grown.get("entries", {}).get(name, {}).get("points", [])
        cells += [f"{1e6 * growth.slope(entries, 'entries', 'seconds'):.2f}" if entries else "", _extra(entries, "entries", KIB)]
        sizes = grown.get("sizes", {}).get(name, {}).get("points", [])
        cells += [f"{round(1e3 * growth.slope(sizes, 'sizes', 'seconds') * GIB)}" if sizes else "", _extra(sizes, "sizes", MIB / GIB)]
        if sizes:
            cells.append(_pair([growth.grown(sizes, measure) / MIB for measure in ("resident", "allocated")], 1))
            cells.append("yes" if growth.is_flat(sizes) else "no")
        rows.append([called(name), *cells, *[""] * (6 - len(cells))])
    return heading, rows


def _extra(points: list[dict[str, Any]], axis: str, unit: float) -> str:
    if not points:
        return ""
    digits = 2 if axis == "entries" else 1
    return _pair([growth.slope(points, axis, measure) / unit for measure in ("resident", "allocated")], digits)


def _pair(values: list[float], digits: int) -> str:
    return "/".join(f"{round(value, digits) + 0.0:.{digits}f}" for value in values)  # + 0.0: nobody wants to read -0.00


def called(line: str) -> str:
    """What a line of the chapter on growth is called."""
    path, name = line.split(": ", 1)
    return PATHS[path].title if name.startswith("flatrecord") else name


def seconds(value: float) -> str:
    """A time with as many digits as say something."""
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def markdown(heading: list[str], rows: Iterable[list[str]]) -> str:
    """A table; what is ours is bold."""
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" + " ---: |" * (len(heading) - 1)]
    for row in rows:
        ours = row[0].startswith("flatrecord")
        lines.append("| " + " | ".join(f"**{cell}**" if ours and cell else cell for cell in row) + " |")
    return "\n".join(lines)


def written(found: Results, pictures: dict[str, Path], changes: against.Changes | None) -> str:
    """The whole report."""
    parts = [*_head(found), *_verdict(found)]
    if changes is not None:
        parts += ["## What has changed", against.told(changes)]
    parts += _how_to_read(found)
    if "peaks" in pictures:
        parts += [_picture(pictures["peaks"], "Peak memory of every library on every path, as multiples of the model")]
    parts += _paths(found)
    if "timeline" in pictures:
        parts += ["## Memory over time", _picture(pictures["timeline"], "Memory of a process over time, ours beside a peer")]
        parts += ["The phases are drawn equally wide, however long they took. Memory is looked at every 10 ms."]
    parts += _limits(found)
    if found["growth"]:
        parts += _growth(found["growth"], pictures)
    parts += _left_out(found)
    return "\n\n".join(parts) + "\n"


def _picture(path: Path, text: str) -> str:
    return f"![{text}]({path.name})"


def _head(found: Results) -> list[str]:
    machine, model = found["machine"], found["model"]
    libraries = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    once = found["passes"] == 1
    several = f"each time is the fastest of {found['passes']}, each peak that of the first; verdicts and growth go by the highest"
    timed = "each was timed once: times are rough" if once else several
    return [
        "# What it costs to move a model: flatrecord beside its peers",
        (
            f"A model of **{model['nbytes'] / GIB:g} GiB**, {model['entries']} arrays of {model['entry'] // MIB} MiB in float32, goes "
            "along every path that flatrecord has, and along the same path with other libraries. Each library on each path is a "
            "fresh process."
        ),
        f"    {found['command']}",
        (
            f"- {found['date']}, {machine['cores']} cores, {machine['memory'] / GIB:.0f} GiB of memory, Linux {machine['kernel']}, "
            f"{machine['machine']}\n- {libraries}\n- {timed}"
        ),
    ]


def _verdict(found: Results) -> list[str]:
    return ["\n".join(f"- {what}: **{'yes' if met else 'no'}**" for what, met in found["verdict"])]


def _how_to_read(found: Results) -> list[str]:
    return [
        "## How to read it",
        (
            "- **Peaks are multiples of the model.** The model itself counts as 1.00: a library at 1.00 needed nothing beside it, one at "
            "2.00 held a second one at some moment. What the interpreter and the libraries take before they start is not counted. Lower is "
            "better.\n"
            "- Large blocks that are freed go back to the system at once (`MALLOC_MMAP_THRESHOLD_=1048576`), so that what a process holds "
            "is what is in use. Not so on the wire, where many are made and freed, which takes longer then: there, glibc keeps what "
            "it likes.\n"
            "- **VmHWM** is the most that was resident, which is what a process is killed for. Linux counts it for the whole process.\n"
            "- **memray** is the most that was asked for, touched or not. It counts a mapped file in full, which takes no memory of the "
            "process: hence 1.00 beside 0.00 for a mapped load. Measured in a turn of its own, whose time does not count.\n"
            "- **× limit** is the time over the least that this machine needs for the bytes that have to move, measured in the same run "
            "(the table of limits is below). 1.0 is as fast as it can be; somewhat less is noise. Empty where there is no such limit.\n"
            "- Values are compared with the model after each turn. Files are in the page cache when they are read.\n"
            "- **Bold** is flatrecord."
        ),
    ]


def _paths(found: Results) -> list[str]:
    parts = []
    for path in found["paths"]:
        way = PATHS[path]
        parts += [f"## {way.title.capitalize()}", _about(found, path), markdown(*rows_of(found, path))]
        steps = {name: result["steps"] for name, result in found["paths"][path].items() if result["steps"]}
        if steps:
            nbytes = found["model"]["nbytes"]
            rows = [[step, *(f"{peaks[step] / nbytes:.2f}" for peaks in steps.values())] for step in next(iter(steps.values()))]
            parts += ["Step by step, VmHWM:", markdown(["", *steps], rows)]
    return parts


def _about(found: Results, path: str) -> str:
    limit = limit_of(PATHS[path], found["limits"])
    if limit is None:
        return PATHS[path].about
    return f"{PATHS[path].about} Limit: {' + '.join(PATHS[path].limit)}, {seconds(limit)} s/GiB."


def _limits(found: Results) -> list[str]:
    rows = [[name, f"{value:.4f}", LIMITS[name]] for name, value in found["limits"].items()]
    lines = ["| | s/GiB | |", "| --- | ---: | --- |", *("| " + " | ".join(row) + " |" for row in rows)]
    about = "Measured in this run, in a process of their own, with nothing of flatrecord."
    return ["## The limits of this machine", about, "\n".join(lines)]


def _growth(grown: dict[str, Any], pictures: dict[str, Path]) -> list[str]:
    parts = ["## How the cost grows"]
    if "growth" in pictures:
        parts.append(_picture(pictures["growth"], "Time, and memory beside the model, over the number of entries and over its size"))
    about = []
    for axis, same in (("entries", "nbytes"), ("sizes", "entries")):
        points = next((line["points"] for line in grown.get(axis, {}).values() if line["points"]), None)
        if points and axis == "entries":
            about.append(f"{points[0]['entries']:,} to {points[-1]['entries']:,} entries in {points[0][same] / MIB:g} MiB")
        elif points:
            about.append(f"{points[0]['nbytes'] / GIB:g} to {points[-1]['nbytes'] / GIB:g} GiB in {points[0][same]} entries")
    parts += [
        (
            f"Measured with {' and with '.join(about)}. The slopes are those of straight lines through all points. Memory is what is "
            "needed beside the model and what was there for it before, by VmHWM/memray; *grown* is what the largest model needs more of it "
            "than the smallest. All are flatrecord's but the last, which needs a second model, to show that it would be seen. Freed blocks "
            "go back to the system at once, on the wire, too, which makes it slower than above."
        ),
        markdown(*growth_rows(grown)),
    ]
    return parts


def _left_out(found: Results) -> list[str]:
    lines = [f"- {PATHS[path].title}: {name}: {reason}" for path, gone in found["missing"].items() for name, reason in gone.items()]
    lines += [
        f"- growth, {called(name)}: {', '.join(line['left_out'])}"
        for kept in found["growth"].values()
        for name, line in kept.items()
        if line["left_out"]
    ]
    absent = [way.title for path, way in PATHS.items() if path not in found["paths"]] + ["growth"] * (not found["growth"])
    lines += [f"- not asked for: {', '.join(absent)}"] if absent else []
    return ["## What was not measured", "\n".join(lines) if lines else "Nothing was left out."]
