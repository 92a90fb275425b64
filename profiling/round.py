"""A client's round, with this package and with stock Flower: peak memory after each step."""

from __future__ import annotations

import argparse

from rich.console import Console

from .models import GIB
from .models import ROUND_LAYER as LAYER
from .process import available, run
from .tables import table

MIB = 1 << 20
LIBRARIES = {"flatrecord": 1.5, "flwr": 3.5}  # and how many times the model each needs
# Without it, glibc keeps what torch frees in pieces of 1 to 32 MiB, and that would count as the records'.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(MIB)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m profiling round``."""
    parser.add_argument("--gib", type=float, default=2.0, help="size of the model in GiB (default: %(default)s)")


def main(options: argparse.Namespace) -> int:
    """Run both rounds and print the table; 1 if ours was not flat or a bit was lost.

    Flat is 1.05 times the model, and the entry and the gradient in flight, which matter where it is small.
    """
    console = Console()
    layers = round(options.gib * GIB / LAYER)
    if layers < 1:
        console.print(f"[red]--gib must be at least {LAYER / GIB}, got {options.gib}[/]")
        return 2
    if available() < LIBRARIES["flwr"] * layers * LAYER:
        console.print(f"[red]{available() / GIB:.1f} GiB are free, too few: choose a smaller --gib[/]")
        return 2
    with console.status("") as status:
        results = {}
        for library in LIBRARIES:
            status.update(f"{library}: a round with {layers} layers of 16 MiB")
            results[library] = run("round", library, layers, environment=ENVIRONMENT).result
    console.print(f"A client's round, {layers * LAYER / GIB:g} GiB of float32: peak memory / model\n", soft_wrap=True)
    found = table("step", *results)
    for step in results["flwr"]["peaks"]:
        found.add_row(step, *(f"{result['peaks'][step] / result['nbytes']:.2f}" for result in results.values()))
    peaks = {library: max(result["peaks"].values()) / result["nbytes"] for library, result in results.items()}
    found.add_row("the whole round", *(f"{peak:.2f}" for peak in peaks.values()))
    console.print(found)
    whole = all(result["equal"] == result["entries"] == layers and result["trained"] for result in results.values())
    console.print(f"Every layer trained, and sent as it is in the model: {'yes' if whole else '[red]no[/]'}")
    flat = max(results["flatrecord"]["peaks"].values()) <= 1.05 * layers * LAYER + 2 * LAYER
    if not flat:
        console.print("[red]The peak with flatrecord was more than 1.05 times the model, and an entry and a gradient of 16 MiB.[/]")
    return 0 if whole and flat else 1
