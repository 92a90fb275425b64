"""What a process pays at its start: for `import flatrecord`, and for `flatrecord flower enable` where it has nothing to do with Flower."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console

SCRIPTS = {"python -c pass": "pass", "python -c 'import numpy'": "import numpy"}
# In a process of its own, which says how many seconds each took.
IMPORTS = """
from time import perf_counter
began = perf_counter()
import numpy
between = perf_counter()
import flatrecord
print(between - began, perf_counter() - between)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m profiling start``."""
    parser.add_argument("--rounds", type=int, default=100, help="starts of each kind (default: %(default)s)")


def main(options: argparse.Namespace) -> int:
    """Start interpreters, those with the hook and without in turn; print the medians."""
    console = Console()
    if options.rounds < 1:
        console.print(f"[red]--rounds must be at least 1, got {options.rounds}[/]")
        return 2
    from .deployment import Environment

    _imports(console, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        environments = [Environment(Path(folder) / "without"), Environment(Path(folder) / "with", flat=True)]
        for name, script in SCRIPTS.items():
            seconds: list[list[float]] = [[], []]
            with console.status(name):
                for _ in range(options.rounds):
                    for environment, found in zip(environments, seconds, strict=True):
                        began = time.perf_counter()
                        subprocess.run([environment.python, "-c", script], env=environment.variables(), check=True)
                        found.append(time.perf_counter() - began)
            without, with_hook = map(median, seconds)
            console.print(
                f"{name}: {1000 * without:.1f} ms without the hook, {1000 * with_hook:.1f} with it, {with_hook / without:.3f} times",
                highlight=False,
            )
    return 0


def _imports(console: Console, rounds: int) -> None:
    """Print what `import flatrecord` costs a process that has imported NumPy already."""
    found = []
    with console.status("import flatrecord"):
        for _ in range(rounds):
            printed = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True).stdout
            found.append([float(word) for word in printed.split()])
    numpy, ours = map(median, zip(*found, strict=True))
    console.print(
        f"import flatrecord: {1000 * ours:.1f} ms after NumPy, which takes {1000 * numpy:.1f}: {ours / numpy:.3f} times", highlight=False
    )
