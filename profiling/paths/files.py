"""To a file, from a file, and a file that stays where it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import flatrecord
import flatrecord.safetensors as ours

from .contender import Contender, Path, Place, model
from .formats import FORMATS, open_joblib, open_torch


def replaced(save: Callable[[Any, str], object]) -> Callable[[Any, Place], None]:
    """Write to a new file, sync it and give it its name, as ours does."""

    def work(arrays: Any, place: Place) -> None:
        save(arrays, place.path + ".new")
        with open(place.path + ".new", "rb") as file:
            os.fsync(file.fileno())
        os.rename(place.path + ".new", place.path)

    return work


def save_ours(arrays: Any, place: Place) -> None:
    flatrecord.ParametersRecord(arrays, True, copy=False).save(place.path)


def free_ours(arrays: Any, place: Place) -> None:
    flatrecord.ParametersRecord(arrays).save(place.path, keep_input=False)


def read_ours(prepared: Any, place: Place) -> Iterable[Any]:
    return ours.load(place.path, mmap=False).to_numpy_ndarrays()


def map_ours(prepared: Any, place: Place) -> Iterable[Any]:
    return ours.load(place.path).to_numpy_ndarrays()


def itself(values: Iterable[Any], place: Place) -> Iterable[Any]:
    return values


def opened(name: str) -> Callable[[Any, Place], Iterable[Any]]:
    return lambda prepared, place: FORMATS[name].open(place.path)


def saved_by(name: str) -> Callable[[Place], object]:
    """Write the file from which another process reads."""
    return lambda place: FORMATS[name].save(model(place.size), place.path)


def saved_by_ours(place: Place) -> None:
    """The same with ours."""
    save_ours(model(place.size), place)


def reader(name: str, format: str, work: Callable[[Any, Place], Iterable[Any]] | None = None, file: str = "") -> Contender:
    """Somebody who reads what a library has written: that of the format, or `file`."""
    file = file or format
    return Contender(name, work or opened(format), itself, lambda place: None, saved_by(file), file, needs=FORMATS[format].needs)


def our_reader(name: str, work: Callable[[Any, Place], Iterable[Any]], bound: float, heap_bound: float) -> Contender:
    return Contender(name, work, itself, lambda place: None, saved_by_ours, OURS, bound=bound, heap_bound=heap_bound)


OURS = "flatrecord"
READ = {"torch.save": "torch.load", "numpy.savez": "numpy.load"}  # what reads is called so
SAVE = Path(
    "save",
    "A model goes to a new file, which is synced and takes the old one's place. The disk of a shared machine may be several times slower "
    "for a while: more `--passes` find it at its best.",
    (
        Contender("flatrecord", save_ours, map_ours, bound=1.02),
        Contender("flatrecord, keep_input=False", free_ours, map_ours, bound=1.02),
        *(
            Contender(name, replaced(found.save), opened(name), needs=found.needs)  # reading shows what was written
            for name, found in FORMATS.items()
        ),
    ),
    limit=("write and fsync",),
    slack=8 << 20,
)
LOAD = Path(
    "load",
    "A model comes from a file in the page cache into memory of its own.",
    (
        our_reader("flatrecord", read_ours, 1.02, 1.02),
        *(reader(READ.get(name, name), name) for name in FORMATS if name != "safetensors, torch"),
    ),
    limit=("read, fresh huge pages",),
    slack=8 << 20,
    prepares="start",
    makes_model=True,
)
MAPPED = Path(
    "mapped load",
    "A model stays in its file, and arrays or tensors show it.",
    (
        our_reader("flatrecord", map_ours, 0.02, 1.02),  # memray counts a mapping as memory
        reader("safetensors, torch", "safetensors, torch", file="safetensors"),
        reader("torch.load, mmap", "torch.save", lambda prepared, place: open_torch(place.path, mmap=True)),
        reader("joblib, mmap_mode", "joblib", lambda prepared, place: open_joblib(place.path, mmap_mode="r")),
    ),
    limit=("mmap",),
    prepares="start",
)
