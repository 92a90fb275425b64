"""Nanoseconds and bytes of each operation on an entry, beside `dict` and Flower's own classes.

Every contender takes its turn in each round of one run, and the best of all rounds counts, so that the
ratios hold on a noisy machine. The cost of the loop around an operation is measured beside it and taken
off.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console

import flatrecord

from .tables import table

try:
    import flwr.app as flower
except ImportError:
    flower = None  # type: ignore[assignment]  # a module otherwise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m profiling micro``."""
    parser.add_argument("--entries", type=int, default=1000, help="entries of the mapping")
    parser.add_argument("--rounds", type=int, default=200, help="turns of each contender, the best of which counts")


Work = Callable[[Any], object]


@dataclass
class Operation:
    """One thing to do to every entry, by each contender.

    `prepare` makes what the work of one round needs, which is not timed; `work` is timed.
    """

    name: str
    work: Work
    prepare: dict[str, Callable[[], object]]
    aim: str = ""
    met: Callable[[dict[str, float]], bool] = lambda found: True
    loop: bool = True  # a Python loop runs around the operation
    works: dict[str, Work] = field(default_factory=dict)  # where a contender differs


def _loop(keys: Any) -> None:
    for _ in keys:
        pass


def measure(operations: list[Operation], entries: int, rounds: int) -> dict[str, dict[str, float]]:
    """Nanoseconds an entry: operation -> contender -> best of all rounds."""
    keys = [None] * entries
    best: dict[str, dict[str, float]] = {operation.name: {} for operation in operations}
    empty = float("inf")

    def timed(work: Work, argument: object) -> float:
        began = time.perf_counter_ns()
        result = work(argument)
        took = time.perf_counter_ns() - began
        del result  # its end is not timed
        return took / entries

    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            empty = min(empty, timed(_loop, keys))
            for operation in operations:
                for contender, prepare in operation.prepare.items():
                    took = timed(operation.works.get(contender, operation.work), prepare())
                    found = best[operation.name]
                    found[contender] = min(found.get(contender, float("inf")), took)
    finally:
        gc.enable()
    for operation in operations:
        if operation.loop:
            best[operation.name] = {name: max(took - empty, 0.1) for name, took in best[operation.name].items()}
    return best


def held(make: Callable[[], object], entries: int, payload: int) -> float:
    """Bytes an entry that the result of `make` holds, beside `payload`."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    result = make()
    gc.collect()
    found = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    del result
    return found / entries - payload


def operations(entries: int) -> list[Operation]:
    """What is measured, for `entries` entries of 16 float32 each."""
    keys = [f"model.layers.{i}.weight" for i in range(entries)]

    def ndarrays() -> dict[str, np.ndarray]:
        return {key: np.zeros(16, np.float32) for key in keys}

    ours = {key: flatrecord.Array(np.zeros(16, np.float32)) for key in keys}
    empty: dict[str, Callable[[], object]] = {"dict": dict, "flatrecord": flatrecord.ParametersRecord}
    full: dict[str, Callable[[], object]] = {
        "dict": lambda: dict(ours),
        "flatrecord": lambda: flatrecord.ParametersRecord(dict(ours)),
    }
    some = list(ndarrays().values())
    arrays: dict[str, Callable[[], object]] = {"flatrecord": lambda: some}
    views: dict[str, Callable[[], object]] = {"flatrecord": lambda: list(ours.values())}
    construct: dict[str, Work] = {"flatrecord": flatrecord.Array}
    values: dict[str, dict[str, Any]] = {"dict": ours, "flatrecord": ours}
    takes: dict[str, Callable[[], object]] = {"dict": lambda: list(ndarrays().items()), "flatrecord": ndarrays}
    works: dict[str, Work] = {"dict": dict, "flatrecord": flatrecord.ParametersRecord}
    if flower is not None:
        theirs = {key: flower.Array(np.zeros(16, np.float32)) for key in keys}
        stock = flower.ArrayRecord(theirs)
        empty["flwr"] = flower.ArrayRecord
        full["flwr"] = stock.copy
        arrays["flwr"] = lambda: some
        views["flwr"] = lambda: list(stock.values())
        construct["flwr"] = flower.Array
        values["flwr"] = theirs
        takes["flwr"] = lambda: list(ndarrays().values())
        works["flwr"] = lambda source: flower.ArrayRecord(source, keep_input=False)

    def get(record: Any) -> None:
        for key in keys:
            record[key]

    def contains(record: Any) -> None:
        for key in keys:
            key in record  # noqa: B015 (looking it up is what is timed)

    def length(record: Any) -> None:
        for _ in keys:
            len(record)

    def iterate(record: Any) -> None:
        for _ in record:
            pass

    def pop(record: Any) -> None:
        for key in keys:
            record.pop(key)

    def setter(source: dict[str, Any]) -> Work:
        def put(record: Any) -> None:
            for key in keys:
                record[key] = source[key]

        return put

    def constructor(cls: Work) -> Work:
        def make(source: Iterable[Any]) -> None:
            for array in source:
                cls(array)

        return make

    def numpy(source: Iterable[Any]) -> None:
        for array in source:
            array.numpy()

    def access(found: dict[str, float]) -> bool:
        return found["flatrecord"] <= 1.2 * found["dict"] and faster(found)

    def faster(found: dict[str, float]) -> bool:
        return "flwr" not in found or found["flwr"] >= 5 * found["flatrecord"]

    both = "≤1.2, ≥5"
    return [
        Operation("get", get, full, both, access),
        Operation("in", contains, full, both, access),
        Operation("len", length, full, both, access),
        Operation("iterate", iterate, full, "≤1.2", lambda f: f["flatrecord"] <= 1.2 * f["dict"], loop=False),
        Operation("set", get, empty, both, access, works={name: setter(values[name]) for name in empty}),
        Operation("pop", pop, full, "≥5", faster),
        Operation("take an ndarray", get, takes, "<1000 ns", lambda f: f["flatrecord"] < 1000, False, works),
        Operation(
            "Array(ndarray)", get, arrays, "≥5", faster,
            works={name: constructor(construct[name]) for name in arrays},
        ),
        Operation("Array.numpy()", numpy, views, "≥5", faster),
    ]  # fmt: skip


def footprints(entries: int) -> dict[str, float]:
    """Bytes an entry beside its payload and the objects that were there before."""
    keys = [f"model.layers.{i}.weight" for i in range(entries)]
    source = {key: np.zeros(16, np.float32) for key in keys}
    payload = 64
    found = {"dict": held(partial(dict, list(source.items())), entries, 0)}
    warm = flatrecord.ParametersRecord({"x": np.zeros(16, np.float32)})  # the header that all share
    found["flatrecord"] = held(lambda: flatrecord.ParametersRecord(source), entries, 0)
    if flower is not None:
        found["flwr"] = held(lambda: flower.ArrayRecord([np.zeros(16, np.float32)] * entries), entries, payload)
    del warm
    return found


def main(options: argparse.Namespace) -> int:
    """Measure and print a table."""
    todo = operations(options.entries)
    found = measure(todo, options.entries, options.rounds)
    contenders = ["dict", "flatrecord", *(["flwr"] if flower is not None else [])]
    title = f"ns an entry, {options.entries} entries of 16 float32, best of {options.rounds} rounds"
    rows = table("operation", *contenders, "/dict", *(["flwr/"] if flower is not None else []), "aim", "", title=title)
    rows.columns[-2].justify = "left"

    def row(name: str, values: dict[str, float], aim: str, met: bool) -> None:
        ours = values["flatrecord"]
        cells = [f"{values[c]:.0f}" if c in values else "" for c in contenders]
        cells.append(f"{ours / values['dict']:.2f}" if "dict" in values else "")
        if flower is not None:
            cells.append(f"{values['flwr'] / ours:.1f}" if "flwr" in values else "")
        rows.add_row(name, *cells, aim, "" if not aim else "met" if met else "missed")

    for operation in todo:
        values = found[operation.name]
        row(operation.name, values, operation.aim, operation.met(values))
    rows.add_section()
    bytes_held = footprints(options.entries)
    row("bytes an entry", bytes_held, "<200 B", bytes_held["flatrecord"] < 200)
    console = Console()
    console.print(rows)
    console.print(
        "/dict: times dict's; flwr/: how many times faster or smaller than flwr. Aims are on these two.\n"
        "take: a dict of ndarrays goes in and is emptied; for dict, dict(list of pairs); for flwr, a list with "
        "keep_input=False, which copies.\nbytes: beside the ndarrays, keys and headers that were there before."
    )
    if flower is None:
        console.print("flwr is not installed: pip install flwr==1.41.0 to see its classes beside.")
    return 0
