"""Files and pipes beside other libraries, in one run: peak memory, seconds, and how close to the machine's own limit."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .files_case import ENTRY, LOAD, MAPPED, PIPE, SAVE
from .models import GIB
from .process import available, run
from .round import ENVIRONMENT
from .tables import table

OPERATIONS = {  # and what stands above its table
    "save": (SAVE, "To a file: written, synced, and renamed over the one that was there. The machine: write of the same bytes."),
    "load": (LOAD, "From a file in the page cache into memory. The machine: read into huge pages."),
    "mapped": (MAPPED, "From a file that stays where it is: arrays or tensors that show it. The machine: mmap."),
    "pipe": (PIPE, "To another process through a socket. The machine: sendmsg and recv_into of 1 MiB."),
}
COLUMNS = {"peak": "peak", "end": "after", "receiver": "receiver"}  # all as multiples of the model
MOST = 5  # times the model: what the greediest takes, with the file in the page cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m profiling files``."""
    parser.add_argument("--gib", type=float, default=2.0, help="size of the model in GiB (default: %(default)s)")
    parser.add_argument("--passes", type=int, default=2, help="times that each library has its turn (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=None, help="where the files are written (default: the system's temporary folder)")


def main(options: argparse.Namespace) -> int:
    """Run all cases and print a table for each operation; 1 if ours took more memory than it says, or a value was wrong."""
    console = Console()
    entries = round(options.gib * GIB / ENTRY)
    if entries < 1 or options.passes < 1:
        console.print(f"[red]--gib must be at least {ENTRY / GIB} and --passes 1, got {options.gib} and {options.passes}[/]")
        return 2
    if available() < MOST * entries * ENTRY:
        console.print(f"[red]{available() / GIB:.1f} GiB of memory are free, too few: choose a smaller --gib[/]")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="flatrecord-profiling-", dir=options.folder))
    try:
        if shutil.disk_usage(folder).free < (len(SAVE) + 2) * entries * ENTRY:
            console.print(f"[red]{shutil.disk_usage(folder).free / GIB:.1f} GiB are free in {folder}: choose another --folder[/]")
            return 2
        found = _measured(console, entries, options.passes, folder)
    finally:
        shutil.rmtree(folder)
    console.print(f"{entries * ENTRY / GIB:g} GiB of float32 in arrays of 16 MiB. The model itself counts as 1.", soft_wrap=True)
    for operation, (contenders, title) in OPERATIONS.items():
        console.print(f"\n{title}", soft_wrap=True)
        console.print(_table({library: found[operation, library] for library in contenders}))
    return _judged(console, found)


def _measured(console: Console, entries: int, passes: int, folder: Path) -> dict[tuple[str, str], dict]:
    """The result of each operation and library: the fastest time and the highest peak of all passes."""
    found: dict[tuple[str, str], dict] = {}
    writers = {"load": LOAD, "mapped": MAPPED}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=passes * sum(len(contenders) for contenders, _ in OPERATIONS.values()))
        for operation, (contenders, _) in OPERATIONS.items():
            for _ in range(passes):
                for library in contenders:
                    progress.update(task, description=f"{operation}: {library}")
                    writer = writers[operation][library][0] if operation in writers else library
                    path = folder / f"{list(SAVE).index(writer) if writer in SAVE else 0}.npz"
                    result = run("files", operation, library, entries, path, environment=ENVIRONMENT).result
                    _merge(found.setdefault((operation, library), result), result)
                    progress.advance(task)
                os.sync()  # so that nobody pays for what another has written
    return found


def _merge(best: dict, result: dict) -> None:
    best["seconds"] = min(best["seconds"], result["seconds"])
    for name in COLUMNS:
        if name in best:
            best[name] = max(best[name], result[name])
    best["equal"] = best["equal"] and result["equal"]


def _table(results: dict[str, dict]) -> Table:
    """A row a library; the first is the machine's own limit."""
    columns = [name for name in COLUMNS if name in next(iter(results.values()))]
    limit = next(iter(results.values()))["seconds"]
    found = table("", *(COLUMNS[name] for name in columns), "seconds", "× machine")
    for library, result in results.items():
        shares = (f"{max(result[name], 0) / result['nbytes']:.2f}" for name in columns)
        found.add_row(library, *shares, f"{result['seconds']:.4f}", f"{result['seconds'] / limit:.2f}")
    return found


def _judged(console: Console, found: dict[tuple[str, str], dict]) -> int:
    """Whether ours was flat and every value right."""
    status = 0
    slack = 64 << 20  # what matters where the model is small
    bounds = {"save": 1, "load": 1, "mapped": 0, "pipe": 1}
    for (operation, library), result in found.items():
        if not result["equal"]:
            console.print(f"[red]{operation}, {library}: wrong values[/]")
            status = 1
        if library.startswith("flatrecord"):
            peak = max(result["peak"], result.get("receiver", 0))
            if peak > (bounds[operation] + 0.02) * result["nbytes"] + slack:
                console.print(f"[red]{operation}: flatrecord took {peak / result['nbytes']:.2f} times the model[/]")
                status = 1
    if status == 0:
        console.print("\nEvery library gave the right values, and flatrecord took no more memory than the model.", soft_wrap=True)
    return status
