"""What a script's turns leave behind: nothing, or the script exits with 1.

A script makes its turns known with `turn` and `each`, and ends with `report()`. Each turn is done some times first, so that what is
made once, cached or kept for reuse (free lists, specialised bytecode, tables that grow) is there. Then it is done 10,000 times, and what
grew meanwhile is looked at:

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
    To all that was there before the first round, so that one too many to None, a dtype or a type is seen as well, which costs no memory. On Python 3.12 and up None and its like are immortal and do not tell.

The garbage collector is off meanwhile, as nothing should need it. There is no slack: not one block more may be there afterwards. Where there is
one, another 10,000 turns are done, and what has not grown in one round out of `ROUNDS` does not leak: a leak grows in each, while a free list
that fills up, or a thread that is still on its way out, does so now and then.

Turns give a dtype to ``np.ones``, ``np.empty`` and ``np.zeros``, because without one NumPy 2.4 itself leaks a reference to that of float64:
``sys.getrefcount(np.dtype("f8"))`` grows with each ``np.ones(3)``.

glibc 2.33 or newer, as it alone tells what its heap holds.
"""

import ctypes
import gc
import os
import re
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from itertools import repeat
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


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


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


OTHERS: list[Callable[[], int]] = [_heap, _mapped, _descriptors, _objects, _references]
MEASURES = ["heap", "mapped", "descriptors", "objects", "references", "blocks"]


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
        How many in a round. Fewer than 10,000 only where each takes long, which the script has to say.
    collected : bool
        The turn leaves cycles: the collector is on, and does its work before anything is looked at. It is an error if it finds none.
    name : str
        That of `work` by default.
    """
    if work is None:
        return lambda work: turn(work, turns=turns, collected=collected, name=name)
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


def _round(turn: Turn) -> dict[str, int]:
    """Do a round, and say how much everything has grown."""
    before, after = array("q", [0] * len(MEASURES)), array("q", [0] * len(MEASURES))  # in which numbers take no blocks
    _repeat(turn, min(turn.turns, WARM_UP))
    for i, read in enumerate(OTHERS):
        before[i] = read()
    _repeat(turn, min(turn.turns, WARM_UP))  # so that free lists are as turns leave them
    before[-1] = sys.getallocatedblocks()  # last, as those before take some for a moment
    _repeat(turn, turn.turns)
    after[-1] = sys.getallocatedblocks()  # and first
    for i, read in enumerate(OTHERS):
        after[i] = read()
    return {name: after[i] - before[i] for i, name in enumerate(MEASURES)}


def _repeat(turn: Turn, turns: int) -> None:
    found = _collected()
    for _ in repeat(None, turns):
        turn.work()
    if turn.collected:
        gc.collect()
        assert _collected() - found >= turns, f"{turn.name}: the collector finds nothing, so this makes no cycles"


def _collected() -> int:
    return sum(generation["collected"] for generation in gc.get_stats())


def _growth(turn: Turn) -> dict[str, int]:
    """What grows, turn after turn: of each figure the least of all rounds. There are as many as it takes until that is nothing."""
    gc.collect()
    (gc.enable if turn.collected else gc.disable)()
    grown = _round(turn)
    for _ in range(ROUNDS - 1):
        if max(grown.values()) > 0:
            found = _round(turn)
            grown = {name: min(grown[name], found[name]) for name in grown}
    gc.enable()
    return {name: growth for name, growth in grown.items() if growth > 0}


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
        verdict = ", ".join(f"{name} {growth:+}" for name, growth in grown.items())
        print(f"{turn.turns:6} turns {time.perf_counter() - start:6.2f} s  {turn.name}: {f'GROWS: {verdict}' if grown else 'nothing grows'}", flush=True)
        leaks += bool(grown)
    sys.exit(1 if leaks else 0)
