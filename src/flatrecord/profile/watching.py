"""In the program that is profiled: which models pass through records, state_dicts and files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import local
from types import ModuleType
from typing import Any

from . import phases
from .models import size_of
from .notes import Writer
from .places import caller

# Module -> what is watched once it has been imported: a function, or a class with its methods.
WATCHED: dict[str, tuple[tuple[str, ...], ...]] = {
    "flatrecord": (
        ("ParametersRecord", "__init__", "load", "read", "save", "write", "to_numpy_ndarrays", "to_torch_state_dict"),
        ("ParametersRecord", "from_numpy_ndarrays", "from_torch_state_dict"),
        ("ArrayRecord", "__init__", "from_numpy_ndarrays", "from_torch_state_dict"),
    ),
    "flatrecord.safetensors": (("save",), ("load",), ("write",), ("read",)),
    "numpy": (("savez",), ("savez_compressed",)),
    "flwr.app": (
        ("ArrayRecord", "__init__", "from_array_dict", "from_numpy_ndarrays", "from_torch_state_dict"),
        ("ArrayRecord", "to_numpy_ndarrays", "to_torch_state_dict"),
    ),
    "safetensors.numpy": (("save",), ("load",), ("save_file",), ("load_file",)),
    "safetensors.torch": (("save",), ("load",), ("save_file",), ("load_file",)),
    "torch": (("save",), ("load",)),
    "torch.nn": (("Module", "state_dict", "load_state_dict"),),
}
FREE, SHARE = 1.0, 0.02  # seconds, and the part of all time, that it may take to look at what passes through


class Watch:
    """Notes every call of what is watched, but not those that another one of them makes.

    Parameters
    ----------
    writer : Writer
        Where the calls are written down.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._thread = local()
        self._began, self._spent = time.perf_counter(), 0.0

    def begin(self) -> None:
        """From now on."""
        phases.record_with(self.phase)
        sys.meta_path.insert(0, self)
        for name in WATCHED.keys() & sys.modules.keys():
            self._look_after(sys.modules[name])

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note a phase that the program has named."""
        number = self.writer.begin(name, None)
        try:
            yield
        finally:
            self.writer.end(number, name, None)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find nothing that others would not; but look after what is watched once it has been imported."""
        if name not in WATCHED or getattr(self._thread, "finding", False):
            return None
        self._thread.finding = True
        try:
            finders = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
            spec = next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
        finally:
            self._thread.finding = False
        loader: Any = spec and spec.loader
        if hasattr(loader, "exec_module"):
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self._look_after(module)

            loader.exec_module = exec_module
        return spec

    def _look_after(self, module: ModuleType) -> None:
        for owner, *methods in WATCHED[module.__name__]:
            if not methods:
                setattr(module, owner, self._watched(getattr(module, owner), f"{module.__name__}.{owner}"))
                continue
            cls = getattr(module, owner)
            for method in methods:
                found = vars(cls).get(method)
                name = owner if method == "__init__" else f"{owner}.{method}"
                if hasattr(found, "__func__"):  # a classmethod
                    setattr(cls, method, classmethod(self._watched(found.__func__, name)))
                elif found is not None:
                    setattr(cls, method, self._watched(found, name))

    def _watched(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function that does the same, and is noted."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._thread, "inside", False):
                return function(*args, **kwargs)
            self._thread.inside = True
            size, place = (0, 0), caller()
            number = self.writer.begin(name, place)
            try:
                before = self._size(*args, kwargs, *kwargs.values())
                result = function(*args, **kwargs)
                size = max(before, self._size(result, *args[:1]))
            finally:
                self.writer.end(number, name, place, *size)
                self._thread.inside = False
            return result

        # Who pickles the function looks for it where it says that it is from.
        home = sys.modules.get(getattr(function, "__module__", None) or "")
        if vars(home or object).get(function.__name__) is function:
            setattr(home, function.__name__, call)
        return call

    def _size(self, *values: Any) -> tuple[int, int]:
        """The largest model among these; unless to look has already taken too much of the time."""
        began = time.perf_counter()
        if self._spent > FREE + SHARE * (began - self._began):
            return 0, 0
        try:
            return max(map(size_of, values), default=(0, 0))
        finally:
            self._spent += time.perf_counter() - began


def watch(writer: Writer) -> None:
    """Let `writer` write down from now on what passes through."""
    Watch(writer).begin()
