"""The main job: a real model, then a multi-gigabyte one, through a record at 1.0 times its size, as ndarrays and tensors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .models import GIB, LLAMAS, Llama
from .picture import memory_over_time
from .process import Run, available, run
from .tables import table

OUT = Path(__file__).parent / "out"
DEFAULT = "llama-3.2-1b"
# The doubled run holds the model twice; the rest is the interpreter and room to breathe.
NEEDED, SPARE = 2.05, 1 * GIB
SLACK = 1 << 20  # bytes of the process itself that come and go


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m profiling demo``."""
    parser.epilog = "Where there is no room for the model twice, a smaller one is taken, and the demo says so."
    parser.add_argument("--model", choices=LLAMAS, default=DEFAULT, help="names and shapes of the large model (default: %(default)s)")
    parser.add_argument("--gib", type=size, default=0.0, help="about this size instead of the model's own, by more or fewer layers")
    parser.add_argument("--picture", type=png, default=OUT / "memory.png", help="where the PNG goes (default: profiling/out/memory.png)")


def size(text: str) -> float:
    """A number of GiB from the command line."""
    gib = float(text)
    if not 0 < gib < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of GiB above 0, got {text}")
    return gib


def png(text: str) -> Path:
    """The path of a picture from the command line, in a folder that exists."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def choose(name: str, gib: float, room: int) -> tuple[str, float]:
    """Key and size (0 for the model's own) of the model asked for, or of the largest for which there is room."""

    def fits(nbytes: float) -> bool:
        return NEEDED * nbytes + SPARE <= room

    asked = gib * GIB or LLAMAS[name].nbytes
    if fits(asked):
        return name, gib
    smaller = [key for key, model in LLAMAS.items() if model.nbytes < asked and fits(model.nbytes)]
    if smaller:
        return max(smaller, key=lambda key: LLAMAS[key].nbytes), 0.0
    return "smollm2-135m", min(0.1, asked / GIB)


class Bar:
    """The progress of one run, from what the child says and from how its memory grows."""

    def __init__(self, progress: Progress, title: str, nbytes: int) -> None:
        self.progress, self.title, self.nbytes = progress, title, nbytes
        self.task: TaskID | None = None
        self.before = 0

    def __call__(self, seen: Run, message: dict[str, Any]) -> None:
        if "phase" in message:
            if message["phase"] == "end":
                return
            if self.task is not None:
                self.progress.update(self.task, completed=self.nbytes)
            self.before = seen.resident[-1] if seen.resident else 0
            self.task = self.progress.add_task(f"{self.title}: {message['phase']}", total=self.nbytes)
        elif self.task is None:
            return
        elif "done" in message:
            self.progress.update(self.task, completed=message["done"] * self.nbytes / message["total"])
        elif "result" in message:
            self.progress.update(self.task, completed=self.nbytes)
        elif seen.phases[-1][0] == "dict → record":
            # A snapshot is one call, which says nothing meanwhile: its memory tells.
            grown = seen.resident[-1] - self.before
            self.progress.update(self.task, completed=max(0, min(grown, self.nbytes)))


def main(options: argparse.Namespace) -> int:
    """Run the demo and print what it found; 1 if a bit differs or the flat run was not flat."""
    console = Console()
    name, gib = choose(options.model, options.gib, available())
    model: Llama = LLAMAS[name].resized(gib * GIB) if gib else LLAMAS[name]
    if (name, gib) != (options.model, options.gib):
        console.print(
            f"[yellow]{available() / GIB:.1f} GiB of memory are free, too few to show "
            f"{options.gib or LLAMAS[options.model].nbytes / GIB:.2f} GiB twice: taking {model.name} instead.[/]"
        )
    runs: list[tuple[str, str, Run]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        real = run("real", watch=Bar(progress, "all-MiniLM-L6-v2", 1))
        runs.append(("all-MiniLM-L6-v2", "False", real))
        for keep in ("take", "keep"):
            flag = str(keep == "keep")
            bar = Bar(progress, f"{model.name}, keep_input={flag}", model.nbytes)
            runs.append((model.name, flag, run("llama", name, gib, keep, watch=bar)))
        bar = Bar(progress, f"{model.name}, torch", model.nbytes // 2)
        runs.append((f"{model.name}, torch", "False", run("state_dict", name, gib, watch=bar)))
    console.print(results(runs))
    console.print("torch: a state_dict of bfloat16 tensors; the others: float32 ndarrays.")
    for title, flag, seen in runs:
        result = seen.result
        console.print(f"{title}, keep_input={flag}: {result['equal']} of {result['entries']} arrays bit-equal", soft_wrap=True)
    lines = [(seen, f"keep_input={flag}") for _, flag, seen in runs[1:3]]
    memory_over_time(lines, model.name, model.nbytes, options.picture)
    console.print(f"Memory over time: {shown(options.picture)}", soft_wrap=True)
    whole = all(seen.result["equal"] == seen.result["entries"] for _, _, seen in runs)
    flat = all(seen.result["peak"] <= 1.02 * seen.result["nbytes"] + SLACK for _, flag, seen in runs if flag == "False")
    if not whole:
        console.print("[red]Some arrays came out with other bits than went in.[/]")
    if not flat:
        console.print("[red]The peak with keep_input=False was more than 1.02 times the model.[/]")
    return 0 if whole and flat else 1


def shown(path: Path) -> Path:
    """`path` as short as it can be given."""
    absolute = path.resolve()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def results(runs: list[tuple[str, str, Run]]) -> Table:
    """The results, a row a run."""
    title = "dict → record → arrays or tensors, each in a fresh process; sizes in GiB"
    found = table("model", "keep_input", "entries", "GiB", "peak", "× model", "seconds", title=title)
    for name, flag, seen in runs:
        result = seen.result
        found.add_row(
            name,
            flag,
            str(result["entries"]),
            f"{result['nbytes'] / GIB:.3f}",
            f"{result['peak'] / GIB:.3f}",
            f"{result['peak'] / result['nbytes']:.2f}",
            f"{result['seconds']:.4f}",
        )
    return found
