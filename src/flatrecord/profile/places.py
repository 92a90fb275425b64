"""Which line of a program is to blame for an allocation: the innermost one that is not a library's."""

from __future__ import annotations

import linecache
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import NamedTuple

Frame = tuple[str, str, int]  # function, file and line, as memray has them
IMPORTING = "<frozen importlib"
GENERATED = "<"  # what is no file: frozen modules, and functions that dataclasses and decorators make
COMPREHENSIONS = {"<listcomp>", "<dictcomp>", "<setcomp>"}  # frames of their own before Python 3.12
CALLERS = 3  # that are kept


class Place(NamedTuple):
    """A line of a program.

    Attributes
    ----------
    file : str
        Path of the source; empty if no Python ran.
    line : int
        Its number, from 1.
    function : str
        The function it belongs to, ``<module>`` for none.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{shortened(self.file)}:{self.line}" if self.file else "a thread that runs no Python"

    @property
    def inside(self) -> str:
        """The function's name as in a sentence; empty where there is none."""
        return f" in {self.function}" if self.function not in ("", "<module>") else ""

    @property
    def source(self) -> str:
        """What stands there; empty where it cannot be read."""
        return linecache.getline(self.file, self.line).strip()


class Blame(NamedTuple):
    """Who made an allocation.

    Attributes
    ----------
    place : Place
        The innermost line that is not a library's; or a library's, where there is no other.
    via : str
        What that line called, such as ``torch.load``; empty where it allocated by itself or by compiled code.
    callers : tuple[Place, ...]
        From where that was called, the nearest first, a few.
    """

    place: Place
    via: str = ""
    callers: tuple[Place, ...] = ()


NOWHERE = Place("", 0, "")


def _libraries() -> Iterator[str]:
    """Folders in which packages lie that are not the program's own."""
    yield from (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield from (*site.getsitepackages(), site.getusersitepackages())


# site-packages is below the standard library's folder, so that the longer ones come first.
LIBRARIES = sorted({os.path.join(folder, "") for folder in _libraries()}, key=len, reverse=True)
PROFILER = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(os.path.dirname(PROFILER), "")
PARENT = os.path.join(os.path.dirname(OURS[:-1]), "")  # of the package, which may be somebody's working tree


_known: dict[str, str | None] = {}


def inside_library(file: str) -> str | None:
    """The path of a source file from its package on, if it is Python's, an installed package's or ours; else None."""
    if file not in _known:
        _known[file] = _below_package(file)
    return _known[file]


def _below_package(file: str) -> str | None:
    if file.startswith(GENERATED):
        return file
    path = os.path.abspath(file)
    for folder in (*LIBRARIES, PARENT) if path.startswith(OURS) else LIBRARIES:
        if path.startswith(folder):
            return path[len(folder) :]
    for name in ("site-packages", "dist-packages"):  # of another environment
        _, found, below = path.rpartition(f"{os.sep}{name}{os.sep}")
        if found:
            return below
    return None


def shortened(file: str) -> str:
    """A path from the working directory on, or of a library from its package on, where it can be given so."""
    path, here = os.path.abspath(file), os.path.join(os.getcwd(), "")
    return inside_library(file) or path.removeprefix(here)


def blame(stack: Sequence[Frame], program: str = "") -> Blame | None:
    """Who made an allocation, by its stack from the innermost frame on.

    Where there is no line but libraries', the innermost of the package in the folder `program` will do, which is run with ``-m``.
    None stands for what is no line's: a library that is imported, or the profiler itself.
    """
    if not stack:
        return Blame(NOWHERE)
    if os.path.dirname(stack[0][1]) == PROFILER and os.path.basename(stack[0][1]) != "watching.py":
        return None
    importing = False
    for is_own in (_is_no_library, lambda file: bool(program) and file.startswith(program)):
        for i, (_, file, _) in enumerate(stack):
            if file.startswith(IMPORTING):
                importing = True
                break
            if is_own(file):
                place, *callers = _places(stack[i:], is_own)
                return Blame(place, _called(stack[:i]), tuple(callers[:CALLERS]))
    # A library that has started a thread, or is the program.
    running = (frame for frame in stack if not frame[1].startswith(GENERATED) and os.path.dirname(frame[1]) != PROFILER)
    function, file, line = next(running, ("", "", 0))
    return Blame(Place(file, line, function)) if file and not importing else None


def caller() -> Place:
    """The innermost line that is running now and is not a library's."""
    frame: FrameType | None = sys._getframe(1)
    stack: list[Frame] = []
    while frame is not None:
        stack.append((frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    found = blame(stack)
    return NOWHERE if found is None else found.place


def _is_no_library(file: str) -> bool:
    return inside_library(file) is None


def _places(stack: Iterable[Frame], is_own: Callable[[str], bool]) -> list[Place]:
    """The program's own lines of a stack; a comprehension belongs to the function around it."""
    found: list[Place] = []
    comprehension = False  # whether the last one is
    for function, file, line in stack:
        if not is_own(file):
            continue
        if comprehension and found[-1].file == file:
            found[-1] = found[-1]._replace(function=function)
        if not comprehension or found[-1][:2] != (file, line):
            found.append(Place(file, line, function))
        comprehension = function in COMPREHENSIONS
    return found


def _called(inside: Sequence[Frame]) -> str:
    """A library's function that a line has called, by the name of its package and its own."""
    for function, file, _ in reversed(inside):
        if os.path.dirname(file) != PROFILER:  # what watches the calls is none of them
            package = (inside_library(file) or "").split(os.sep)[0].removesuffix(".py")
            return function if package.startswith("<") else f"{package}.{function}"
    return ""
