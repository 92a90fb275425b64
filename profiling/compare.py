"""Every path of the package beside its peers, on the same model in fresh processes: peak memory, time, and how both grow."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import against, charts, growth, report, results
from .demo import shown
from .limits import LIMITS
from .models import ENTRY, GIB
from .paths import PATHS, Contender
from .process import ENVIRONMENT, Run, available, run
from .tables import table
from .verdict import judged

OUT = Path(__file__).parent / "out"
CHAPTERS = (*PATHS, "growth")
MEMORY, DISK = 5.2, 3.2  # times the model: what the greediest takes, with its files in the page cache
KEPT = 9  # files that are read, each a model
QUICK_GIB, QUICK_PASSES = 3 / 32, 1
LIMITS_MOST = GIB // 2  # bytes that the limits are measured with, in so many turns
LIMITS_TURNS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m profiling compare``."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"of {', '.join(CHAPTERS)} (default: all)")
    parser.add_argument("--gib", type=float, default=None, help="size of the model in GiB (default: 1, or 0.09375 with --quick)")
    parser.add_argument(
        "--passes", type=int, default=None, help="times that the clock runs, the fastest of which counts (default: 2, or 1 with --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="a small model, and a short look at how the cost grows: under two minutes")
    parser.add_argument("--against", type=Path, default=None, metavar="FILE", help="report.json of another run: say what has changed since")
    parser.add_argument("--folder", type=Path, default=None, help="where files are written (default: the system's temporary folder)")
    parser.add_argument("--out", type=Path, default=OUT, help="where the report goes (default: profiling/out)")


def main(options: argparse.Namespace) -> int:
    """Measure, print a table for each path, and write the report; 1 if a value was wrong or ours was not flat."""
    console = Console()
    gib = options.gib if options.gib is not None else QUICK_GIB if options.quick else 1.0
    passes = options.passes if options.passes is not None else QUICK_PASSES if options.quick else 2
    try:
        earlier = results.read(options.against) if options.against else None
        _refuse(options, gib, passes)
    except ValueError as error:
        console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        return 2
    entries = round(gib * GIB / ENTRY)
    found = results.started(_command(options), entries, ENTRY, passes)
    chapters = [name for name in CHAPTERS if not options.paths or name in options.paths]
    folder = Path(tempfile.mkdtemp(prefix="flatrecord-profiling-", dir=options.folder))
    try:
        if shutil.disk_usage(folder).free < DISK * entries * ENTRY:
            console.print(f"[red]{shutil.disk_usage(folder).free / GIB:.1f} GiB are free for files: choose another --folder[/]")
            return 2
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            Comparison(console, progress, found, folder, growth.QUICK if options.quick else growth.FULL).all(chapters)
    finally:
        shutil.rmtree(folder)
    found["verdict"] = judged(found)
    changes = against.changes(earlier, found) if earlier else None
    _written(found, changes, options.out)
    if changes is not None:
        for note in changes.notes:
            console.print(note, soft_wrap=True, highlight=False, markup=False)
        console.print(against.printed(changes) if changes.rows else f"Nothing has changed since {changes.since}.")
    for what, met in found["verdict"]:
        console.print(f"{escape(what)}: {'yes' if met else '[red]no[/]'}", soft_wrap=True, highlight=False)
    console.print(f"Report: {shown(options.out / 'report.md')}", soft_wrap=True)
    return 0 if all(met for _, met in found["verdict"]) else 1


def _command(options: argparse.Namespace) -> str:
    """What makes such a report again, wherever it lies."""
    words = ["python -m profiling compare", *options.paths, *(["--quick"] if options.quick else [])]
    words += [f"--{name} {value:g}" for name in ("gib", "passes") if (value := getattr(options, name)) is not None]
    return " ".join(words)


def _refuse(options: argparse.Namespace, gib: float, passes: int) -> None:
    """A ValueError that says why this cannot be measured."""
    unknown = [name for name in options.paths if name not in CHAPTERS]
    if unknown:
        raise ValueError(f"no path {', '.join(unknown)}; there are {', '.join(CHAPTERS)}")
    if not ENTRY / GIB <= gib < 1e6 or passes < 1:
        raise ValueError(f"--gib must be at least {ENTRY / GIB} and --passes 1, got {gib} and {passes}")
    if available() < MEMORY * gib * GIB:
        raise ValueError(f"{available() / GIB:.1f} GiB of memory are free, too few: choose a smaller --gib")
    if options.folder is not None and not options.folder.is_dir():
        raise ValueError(f"--folder: there is no folder {options.folder}")
    if not options.out.parent.is_dir():
        raise ValueError(f"--out: there is no folder {options.out.parent}")


class Comparison:
    """Runs one process after the other and keeps what they have found."""

    def __init__(self, console: Console, progress: Progress, found: results.Results, folder: Path, range: growth.Range) -> None:
        self._console, self._progress, self._found, self._folder, self._range = console, progress, found, folder, range
        self._task = progress.add_task("")
        # Files that several read are written once, where they are small enough to stay in the page cache meanwhile.
        self._keeps = KEPT * found["model"]["nbytes"] < min(available(), shutil.disk_usage(folder).free) / 4

    def all(self, chapters: list[str]) -> None:
        """Measure the limits and what was asked for."""
        points = list(self._range.points()) if "growth" in chapters else []
        paths = [name for name in chapters if name in PATHS]
        self._progress.update(self._task, total=1 + len(points) + sum(len(PATHS[name].contenders) for name in paths))
        self._limits()
        for name in paths:
            self._path(name)
        self._clear()
        for point in points:
            self._point(*point)
        if points:
            self._console.print(growth_table(self._found["growth"]), "")

    def _begin(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def _limits(self) -> None:
        self._begin("limits of the machine")
        nbytes = min(self._found["model"]["nbytes"], LIMITS_MOST)
        self._found["limits"] = run("limits", nbytes, self._folder / "limits", LIMITS_TURNS).result["seconds"]
        self._clear()
        rows = table("The machine at its best", "s/GiB")
        for name, seconds in self._found["limits"].items():
            rows.add_row(name, f"{seconds:.4f}")
        self._console.print(rows, "")
        self._progress.advance(self._task)

    def _path(self, path: str) -> None:
        kept = self._found["paths"][path] = {}
        for contender in PATHS[path].contenders:
            self._begin(f"{PATHS[path].title}: {contender.name}")
            if missing := contender.missing():
                self._found["missing"].setdefault(path, {})[contender.name] = f"{', '.join(missing)} not installed"
            else:
                seen = self._contender(path, contender)
                kept[contender.name] = seen.result
                if (path, contender.name) in charts.DRAWN:
                    self._found["timeline"].append(charts.over_time(path, contender.name, seen))
            self._progress.advance(self._task)
        self._console.print(path_table(self._found, path), "")

    def _contender(self, path: str, contender: Contender) -> Run:
        size, file = (self._found["model"]["entries"], ENTRY), self._folder / f"{contender.file}.npz"
        environment = ENVIRONMENT if PATHS[path].eager else {}
        if contender.before and not file.exists():
            run("before", path, contender.name, *size, file)
        seen = run("compare", path, contender.name, *size, self._found["passes"], file, "all", environment=environment)
        if not (contender.before and self._keeps):
            self._clear(file.name)
        return seen

    def _clear(self, name: str = "") -> None:
        """Away with the files whose names begin so."""
        for file in self._folder.glob(f"{name}*"):
            file.unlink()

    def _point(self, axis: str, path: str, name: str, size: Any) -> None:
        self._begin(f"growth: {PATHS[path].title}, {size.entries} entries, {size.nbytes / GIB:.2f} GiB")
        kept = self._found["growth"].setdefault(axis, {}).setdefault(f"{path}: {name}", {"points": [], "left_out": []})
        if reason := growth.too_large(path, size, self._folder):
            kept["left_out"].append(f"{size.nbytes / GIB:g} GiB ({reason})")
        elif missing := PATHS[path].named(name).missing():
            kept["left_out"].append(f"{size.nbytes / GIB:g} GiB ({', '.join(missing)} not installed)")
        else:
            kept["points"].append(growth.point(path, name, size, self._folder, self._range.passes))
        self._progress.advance(self._task)


def path_table(found: results.Results, path: str) -> Table:
    """A row a library, ours in bold."""
    heading, rows = report.rows_of(found, path)
    made = table(*heading, title=PATHS[path].title)
    for row in rows:
        made.add_row(*map(escape, row), style="bold green" if row[0].startswith("flatrecord") else "")
    return made


def growth_table(grown: dict[str, Any]) -> Table:
    """A row a path: what a further entry and a further GiB cost."""
    heading, rows = report.growth_rows(grown)
    made = table(*heading, title="How the cost grows")
    for row in rows:
        made.add_row(*map(escape, row), style="" if row[0] == growth.CONTROL[1] else "bold green")
    return made


def _written(found: results.Results, changes: against.Changes | None, out: Path) -> None:
    """The report, its pictures and its JSON."""
    out.mkdir(exist_ok=True)
    pictures = charts.draw(found, out)
    (out / "report.json").write_text(json.dumps(found, indent=1))
    (out / "report.md").write_text(report.written(found, pictures, changes))


assert all(name in LIMITS for way in PATHS.values() for name in way.limit)
