"""How fast copies, hashes and small entries are, each beside what the machine can do at best."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import Progress

from .models import ENTRY, GIB
from .process import Run, available, run
from .tables import table

MIB = 1 << 20
CACHES = {"none": "0", "32 MiB, as it is": "", "all of it": str(1 << 20)}  # FLATRECORD_CACHE_MIB
ROUNDS = 20
NEEDED = 3.2  # times the size: what the greediest section takes


@dataclass
class Found:
    """What the sections found: tables to be printed, and how each aim was met."""

    console: Console
    progress: Progress
    size: int  # bytes
    passes: int
    count: int  # entries
    aims: list[tuple[str, str, bool]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def case(self, section: str, *arguments: object, environment: dict[str, str] | None = None) -> dict[str, Any]:
        """The result of one case, with its progress shown."""
        task = self.progress.add_task(section, total=None)

        def watch(seen: Run, message: dict[str, Any]) -> None:
            if "done" in message:
                self.progress.update(task, completed=message["done"], total=message["total"])

        result = run("speed", section, *arguments, watch=watch, environment=environment).result
        self.progress.remove_task(task)
        if not result.get("equal", True):
            self.broken.append(section)
        return result

    def aim(self, what: str, found: float, met: bool, unit: str = "") -> None:
        self.aims.append((what, f"{found:.2f}{unit}", met))


def copies(found: Found) -> None:
    """One array that is copied into memory that is new."""
    result = found.case("copies", found.size, found.passes)
    seconds, gib = result["seconds"], result["nbytes"] / GIB
    limit = min(taken for name, taken in seconds.items() if name.startswith("the machine"))
    pages = seconds["NumPy: copy(), 4 KiB pages"]
    rows = table(f"one array of {gib:g} GiB, {result['threads']} threads", "s/GiB", "of the machine", "× NumPy, 4 KiB")
    for name, taken in seconds.items():
        rows.add_row(name, f"{taken / gib:.3f}", f"{limit / taken:.2f}", f"{pages / taken:.1f}")
    found.console.print(rows)
    worst = max(taken for name, taken in seconds.items() if not name.startswith(("the machine", "NumPy")))
    found.aim("copies: at least 0.9 of the machine's own", limit / worst, limit / worst >= 0.9)
    found.aim("copies: at least 4 times NumPy's into 4 KiB pages", pages / worst, pages / worst >= 4)


def strided(found: Found) -> None:
    """Arrays that are not contiguous."""
    result = found.case("strided", found.size // 4, max(found.passes // 2, 2))
    rows = table(f"not contiguous, {found.size / 4 / GIB:g} GiB", "s/GiB", "of the machine", "× NumPy")
    slowest = float("inf")
    for name, taken in result["rows"].items():
        faster = taken["numpy"] / taken["ours"]
        slowest = min(slowest, faster)
        rows.add_row(name, f"{taken['ours'] * GIB:.3f}", f"{taken['machine'] / taken['ours']:.2f}", f"{faster:.1f}")
    found.console.print(rows)
    found.aim("not contiguous: none slower than NumPy's", slowest, slowest >= 1)


def sizes(found: Found) -> None:
    """Arrays of all sizes."""
    result = found.case("sizes", found.size, found.passes)
    rows = table("a copy, one at a time", "NumPy", "Array(x)", "× time", "numpy(True)", "× time")
    worst = 0.0
    for size, taken in result["rows"].items():
        ours, out, numpy = taken["Array(ndarray)"], taken["numpy(copy=True)"], taken["numpy"]
        worst = max(worst, ours / numpy)
        cells = (_time(numpy), _time(ours), f"{ours / numpy:.2f}", _time(out), f"{out / numpy:.2f}")
        rows.add_row(_size(int(size)), *cells)
    found.console.print(rows)
    found.aim("every size: Array(x) at most 1.1 times NumPy's time", worst, worst <= 1.1)


def hashes(found: Found) -> None:
    """Flower's object ids."""
    result = found.case("hashes", found.size, found.passes)
    seconds, gib = result["seconds"], result["nbytes"] / GIB
    alone, ours = seconds["the machine: hashlib, one thread"], seconds["object ids of a record's chunks"]
    rows = table(f"SHA-256 of {gib:g} GiB, {result['threads']} threads", "s/GiB", "× one thread")
    for name, taken in seconds.items():
        rows.add_row(name, f"{taken / gib:.3f}", f"{alone / taken:.2f}")
    found.console.print(rows)
    aim = 0.9 * result["threads"]
    found.aim(f"hashes: at least {aim:g} times one thread", alone / ours, alone / ours >= aim)


def rounds(found: Found) -> None:
    """Records that are built and dropped."""
    rows = table("build and drop; kept of freed memory", "ms a round", "page faults", "stays, MiB")
    for entry in (ENTRY, MIB):
        for name, setting in CACHES.items():
            result = found.case("rounds", found.size // 2, entry, ROUNDS, environment={"FLATRECORD_CACHE_MIB": setting})
            cells = (f"{result['seconds'] * 1e3:.0f}", f"{result['faults']}", f"{result['kept'] / MIB:.0f}")
            rows.add_row(f"{result['nbytes'] // entry} arrays of {entry // MIB} MiB: {name}", *cells)
    found.console.print(rows)


def entries(found: Found) -> None:
    """Many small arrays."""
    result = found.case("entries", found.count, min(found.passes, 3))
    rows = table(f"{found.count} arrays of 16 float32: ns each", "dict", "ours", "× dict", "flwr", "safetensors")
    for name, taken in result["rows"].items():
        ours = taken["ours"]
        cells = [f"{taken[other]:.0f}" if other in taken else "" for other in ("dict", "flwr", "safetensors")]
        rows.add_row(name, cells[0], f"{ours:.0f}", f"{ours / taken['dict']:.1f}" if "dict" in taken else "", *cells[1:])
    held = result["nbytes"]
    rows.add_section()
    theirs = f"{held['dict']:.0f}", f"{held['flwr']:.0f}"
    rows.add_row("bytes beside payload, taken", theirs[0], f"{held['ours, taken']:.0f}", "", theirs[1])
    rows.add_row("bytes beside payload, snapshots", theirs[0], f"{held['ours, snapshots']:.0f}", "", theirs[1])
    found.console.print(rows)
    building = result["rows"]["take"]["ours"] / result["rows"]["take"]["dict"]
    found.aim("entries: at most 3 times dict(list)", building, building <= 3)
    most = max(held["ours, taken"], held["ours, snapshots"])
    found.aim("entries: at most 200 bytes each", most, most <= 200, " B")


SECTIONS: dict[str, Callable[[Found], None]] = {section.__name__: section for section in (copies, strided, sizes, hashes, rounds, entries)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m profiling speed``."""
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--gib", type=float, default=1.0, help="size of the array in GiB (default: %(default)s)")
    parser.add_argument("--entries", type=int, default=100_000, help="how many small arrays (default: %(default)s)")
    parser.add_argument("--passes", type=int, default=5, help="turns of each contender, the fastest of which counts (default: %(default)s)")


def main(options: argparse.Namespace) -> int:
    """Run the sections and print a table for each; 1 if a value was wrong."""
    console = Console()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        console.print(f"[red]no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}[/]")
        return 2
    if not options.gib >= 1 / 256 or options.passes < 1 or options.entries < 1:
        console.print(
            f"[red]--gib must be at least 1/256, --passes and --entries at least 1, got {options.gib}, {options.passes} "
            f"and {options.entries}[/]"
        )
        return 2
    size = int(options.gib * GIB) // (4 * MIB) * (4 * MIB)
    if available() < NEEDED * size:
        console.print(f"[red]{available() / GIB:.1f} GiB of memory are free, too few: choose a smaller --gib[/]")
        return 2
    with Progress(console=console, transient=True) as progress:
        found = Found(console, progress, size, options.passes, options.entries)
        for name, section in SECTIONS.items():
            if not options.sections or name in options.sections:
                section(found)
                console.print()
    rows = table("aim", "found", "")
    for what, number, met in found.aims:
        rows.add_row(what, number, "met" if met else "[red]missed[/]")
    if found.aims:
        console.print(rows)
    for name in found.broken:
        console.print(f"[red]{name}: wrong values[/]")
    return 1 if found.broken else 0


def _size(nbytes: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes} {unit}"
        nbytes //= 1024
    return f"{nbytes} GiB"


def _time(nanoseconds: float) -> str:
    if nanoseconds < 10_000:
        return f"{nanoseconds:.0f} ns"
    if nanoseconds < 10_000_000:
        return f"{nanoseconds / 1e3:.0f} µs"
    return f"{nanoseconds / 1e6:.0f} ms"
