"""What is compared with what: a model, a library that does something with it, and the place in which it does so."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from flatrecord.profile.resident import forget_peak, status

from ..process import Child

MARK = 2048  # every so many elements one is different, so that no two chunks of a model are equal


class Size(NamedTuple):
    """A model's size."""

    entries: int
    entry: int  # bytes of each

    @property
    def nbytes(self) -> int:
        """int: bytes of all."""
        return self.entries * self.entry

    def one(self, most: int) -> Size:
        """A model of one entry, of at most so many bytes."""
        return Size(1, min(self.entry, most))


def layer(i: int, nbytes: int) -> np.ndarray:
    """The array of this number: full of it, but for the marks."""
    array = np.full(nbytes // 4, i, np.float32)
    array[::MARK] = np.arange(len(array[::MARK]))
    return array


def model(size: Size) -> dict[str, np.ndarray]:
    """A model of float32, all of it resident."""
    return {f"layer{i:06}.weight": layer(i, size.entry) for i in range(size.entries)}


def state_dict(size: Size) -> dict[str, Any]:
    """The same in tensors whose memory is torch's."""
    import torch

    found = {}
    for i in range(size.entries):
        tensor = torch.full((size.entry // 4,), float(i))
        tensor[::MARK] = torch.arange(len(tensor[::MARK]))
        found[f"layer{i:06}.weight"] = tensor
    return found


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Tensors that show these arrays."""
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def is_model(values: Iterable[Any], size: Size) -> bool:
    """Whether these are the arrays of `model`, bit for bit; in any order, as not all libraries keep it."""
    found = sorted((np.asarray(value) for value in values), key=lambda array: float(array[1]))
    expected = layer(0, size.entry)
    marks = expected[::MARK].copy()
    for i, array in enumerate(found):
        expected.fill(i)
        expected[::MARK] = marks
        if not np.array_equal(array, expected):
            return False
    return len(found) == size.entries


def has_ends(values: Iterable[Any], size: Size) -> bool:
    """Whether the first and the last elements are those of `model`: what `is_model` looks for, but sooner."""
    ends = sorted((float(value[1]), float(value[-1])) for value in values)
    last = float(layer(0, size.entry)[-1])  # a mark, or the number
    return ends == [(i, last or i) for i in range(size.entries)]


@dataclass
class Place:
    """Where a library does its work."""

    size: Size
    path: str  # of a file that nobody else uses
    child: Child
    peer: Any = None  # a socket, at whose other end the model is wanted
    interpreter: int = 0  # bytes that were resident before
    steps: dict[str, int] = field(default_factory=dict)  # peak of each, in bytes

    def is_model(self, values: Iterable[Any], thoroughly: bool) -> bool:
        """Whether these are the model's arrays; only the ends of each are looked at if not `thoroughly`."""
        return (is_model if thoroughly else has_ends)(values, self.size)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step of several, whose peak is noted."""
        self.child.phase(name)
        yield
        self.steps[name] = max(self.steps.get(name, 0), status("VmHWM") - self.interpreter)
        forget_peak()


@dataclass(frozen=True)
class Contender:
    """One library's way along a path.

    `work` is what is measured. It is given what `prepare` has made, and `values` finds the arrays or tensors in what it returns, which
    must be the model; or `check` says whether it is right. `before` writes what is read, in a process of its own; those who read the
    same have the same `file`. Where there is another process at the other end, `receive` is what is measured there.
    """

    name: str
    work: Callable[[Any, Place], Any]
    values: Callable[[Any, Place], Iterable[Any]] | None = None
    prepare: Callable[[Place], Any] = lambda place: model(place.size)
    before: Callable[[Place], object] | None = None
    file: str = "model"
    receive: Callable[[Place], Iterable[Any]] | None = None
    check: Callable[[Any], bool] | None = None
    needs: tuple[str, ...] = ()  # modules
    bound: float | None = None  # times the model that it may take; None if it promises nothing
    heap_bound: float | None = None  # the same by memray, where that is another
    paced: bool = False  # somebody else sets the time that it takes

    def is_right(self, result: Any, place: Place, thoroughly: bool) -> bool:
        """Whether `work` has given what it should; only the ends of each array are looked at if not `thoroughly`."""
        if self.check is not None:
            return self.check(result)
        if self.values is not None:
            return place.is_model(self.values(result, place), thoroughly)
        return True

    def missing(self) -> list[str]:
        """The modules that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Path:
    """A way that a model takes, and who goes along it."""

    title: str
    about: str  # a sentence or two
    contenders: tuple[Contender, ...]
    limit: tuple[str, ...] = ()  # keys of `limits.LIMITS`, whose times add up; nothing if no bytes move
    slack: int = 4 << 20  # bytes that ours may take beside its bound, which matter where the model is small
    prepares: str = "make the model"  # what comes before the work, as the picture calls it
    stepwise: bool = False  # the work says itself which phases it has
    eager: bool = True  # what is freed goes back to the system at once: see `process.ENVIRONMENT`
    makes_model: bool = False  # what comes out is new memory: the model is not there before

    def named(self, name: str) -> Contender:
        """The contender of this name."""
        return next(found for found in self.contenders if found.name == name)
