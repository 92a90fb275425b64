"""What a script's turns leave behind: nothing, or the script exits with 1.

A script makes its turns known with `turn` and `each`, and ends with `report()`. Each turn is done some times first, so that what
is made once or cached (specialised bytecode, tables that grow) is there. Then it is done 10,000 times,
and what grew meanwhile is looked at:

cycles
    Objects that the garbage collector finds at the end, as it is off until then: nothing should need it.
blocks
    Of Python's allocator: objects, and whatever else has at most 512 bytes.
heap
    Bytes from malloc, which NumPy, torch and Python take what is larger from.
mapped
    Bytes of mappings: large arrays of ours, files, threads' stacks.
descriptors
    Open files, pipes, sockets.
objects
    At which the garbage collector looks.
references
    To all that was there before the first round, so that one too many (or too few) to None, a dtype or a type is seen as well,
    which costs no memory. On Python 3.12 and up None and its like are immortal and do not tell.

There is no slack: not one block more or less may be there afterwards. Where there is, another 10,000 turns are done. What grows in
each of `ROUNDS` rounds leaks, and what shrinks in each is let go of too often, while a table that grows, or a thread that is still
on its way out, does so now and then.

Turns give a dtype to ``np.ones``, ``np.empty`` and ``np.zeros``, because without one NumPy 2.4 itself leaks a reference to that
of float64: ``sys.getrefcount(np.dtype("f8"))`` grows with each ``np.ones(3)``.

glibc 2.33 or newer, as it alone tells what its heap holds.
"""

import ctypes
import gc
import os
import re
import sys
import time
from array import array
from collections.abc import Callable
from itertools import pairwise, repeat
from pathlib import Path
from typing import NamedTuple

ROUNDS = 8
WARM_UP = 100  # turns
TURNS = 10_000

SETTINGS = {
    # What a thread has freed is counted as in use while glibc keeps it for that thread; and each thread would have an arena.
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1",
    "FLATRECORD_CACHE_MIB": "0",  # our own blocks go back to the system at once
    "FLATRECORD_THREADS": "2",  # so that the pool has work on any machine
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # sets and dicts are as large in every run
    "CUDA_VISIBLE_DEVICES": "",
}
if any(os.environ.get(name) != value for name, value in SETTINGS.items()):
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **SETTINGS})

sys.path.append(str(Path(__file__).parents[2]))  # `tests`, for what the other tests have: arrays.py, flower/peer.py

from exhaustive import EXHAUSTIVE  # noqa: E402 (once it can be found)


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]


_libc = ctypes.CDLL(None)
_libc.mallinfo2.restype = _Mallinfo


def _heap() -> int:
    found = _libc.mallinfo2()
    return found.uordblks + found.hblkhd


def _mapped() -> int:
    total = 0
    with open("/proc/self/maps", "rb", buffering=0) as file:
        for line in file.readall().splitlines():
            if not line.endswith(b"[heap]"):  # of which malloc says what is in use
                start, stop = line.split(None, 1)[0].split(b"-")
                total += int(stop, 16) - int(start, 16)
    return total


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _objects() -> int:
    return len(gc.get_objects())


_watched: list[object] = []


def _watch() -> None:
    """Watch all that there is now: what the collector knows, and what that refers to."""
    gc.collect()
    objects = gc.get_objects()
    alive = {id(value): value for value in (*objects, *gc.get_referents(*objects))}
    # But for numbers, since those who count use them.
    _watched.extend(value for value in alive.values() if type(value) is not int)
    gc.freeze()  # `_objects` need not count these each time


def _references() -> int:
    return sum(map(sys.getrefcount, _watched))


def _cycles() -> int:
    gc.collect()
    return sum(generation["collected"] for generation in gc.get_stats())


# In this order: a collection empties free lists, and the others take some blocks for a moment.
MEASURES: dict[str, Callable[[], int]] = {
    "cycles": _cycles,
    "blocks": sys.getallocatedblocks,
    "heap": _heap,
    "mapped": _mapped,
    "descriptors": _descriptors,
    "objects": _objects,
    "references": _references,
}


class Turn(NamedTuple):
    name: str
    work: Callable[[], object]
    turns: int
    collected: bool


_turns: list[Turn] = []


def turn(work: Callable[[], object] | None = None, /, *, turns: int = TURNS, collected: bool = False, name: str = "") -> Callable:
    """Let the script do this again and again, and look at what stays. A decorator.

    Parameters
    ----------
    work : callable
        Is a turn.
    turns : int
        How many in a round. Fewer than 10,000 only where each takes long, which the script has to say; not with `make exhaustive`.
    collected : bool
        The turn leaves cycles: the collector is on, and it is an error if it finds none.
    name : str
        That of `work` by default.
    """
    if work is None:
        return lambda work: turn(work, turns=turns, collected=collected, name=name)
    turns = max(turns, TURNS) if EXHAUSTIVE else turns
    _turns.append(Turn(name or work.__name__.replace("_", " ").strip(), work, turns, collected))
    return work


def each(cases: dict[str, object], **options) -> Callable:
    """Let the script do this again and again, with one case after the other. A decorator of what takes a case."""

    def register(work: Callable[[object], object]) -> Callable:
        for name, case in cases.items():
            turn(lambda case=case: work(case), name=f"{work.__name__.replace('_', ' ').strip()}, {name}", **options)
        return work

    return register


class refused:
    """The block raises this, with a message that has `text` in it; nothing is kept of the error."""

    def __init__(self, kind: type[BaseException], text: str = "") -> None:
        self.kind, self.text = kind, text

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> bool:
        assert kind is not None, f"nothing was raised, in place of {self.kind.__name__}: {self.text}"
        return issubclass(kind, self.kind) and re.search(self.text, str(error)) is not None


# CPython's cache of attributes holds up to 4096 names, also such as C code makes for one look; which, their addresses decide.
_forget_attributes: Callable[[], None] = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache


def _sample(turn: Turn, turns: int, sample: array) -> None:
    """Do some turns, and read everything after them: always in the same state, as one round ends where the next begins."""
    for _ in repeat(None, turns):
        turn.work()
    _forget_attributes()
    for i, read in enumerate(MEASURES.values()):
        sample[i] = read()


def _least(samples: list[array], i: int) -> int:
    """How much the figure at `i` grows, or shrinks, in every round: the least of all rounds."""
    grown = [after[i] - before[i] for before, after in pairwise(samples)]
    return max(min(grown), 0) + min(max(grown), 0)


def _growth(turn: Turn) -> dict[str, int]:
    """What grows, or shrinks, in every round. There are as many rounds as it takes until that is nothing."""
    samples = [array("q", [0] * len(MEASURES)) for _ in range(ROUNDS + 1)]  # in which numbers take no blocks
    watched = range(turn.collected, len(MEASURES))  # cycles come first
    (gc.enable if turn.collected else gc.disable)()
    _sample(turn, min(turn.turns, WARM_UP), samples[0])
    for done in range(1, ROUNDS + 1):
        _sample(turn, turn.turns, samples[done])
        if not any(_least(samples[: done + 1], i) for i in watched):
            break
    gc.enable()
    cycles = _least(samples[: done + 1], 0)
    assert cycles >= turn.turns or not turn.collected, f"{turn.name}: the collector finds {cycles} objects, so this makes no cycles"
    growth = {name: _least(samples[: done + 1], i) for i, name in enumerate(MEASURES) if i in watched}
    return {name: count for name, count in growth.items() if count}


def report() -> None:
    """Do all that was registered, print what was found, and exit with 1 if anything grows. Words on the command line choose."""
    leaks = 0
    chosen = [turn for turn in _turns if all(word in turn.name for word in sys.argv[1:])]
    for turn in chosen:
        turn.work()  # which may import more
    _watch()
    for turn in chosen:
        start = time.perf_counter()
        grown = _growth(turn)
        verdict = "GROWS: " + ", ".join(f"{name} {count:+}" for name, count in grown.items()) if grown else "nothing grows"
        print(f"{turn.turns:6} turns {time.perf_counter() - start:6.2f} s  {turn.name}: {verdict}", flush=True)
        leaks += bool(grown)
    sys.exit(1 if leaks else 0)
