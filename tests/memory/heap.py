"""The peak of the heap while a block of code runs, measured by memray."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import memray

from flatrecord._core.buffer import empty_cache

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def beginnings(entries: int, total: int) -> int:
    """What copies of so many equal arrays take beside `total` bytes: a large one begins as far into a page as its source."""
    return entries * 4 * KIB if total // entries >= MIB else 0


@dataclass
class Heap:
    """What a block of code asked for."""

    peak: int = -1  # bytes, over what was there before the block


@contextmanager
def heap() -> Iterator[Heap]:
    """Measure the block; memory that was allocated before it does not count.

    memray counts what is requested, touched or not, so that models may be made with `numpy.empty`.
    """
    measured = Heap()
    empty_cache()  # what is in it was asked for before
    with TemporaryDirectory() as folder:
        path = Path(folder) / "memray.bin"
        # Without trace_python_allocators the 1 MiB arenas of pymalloc would show, not the objects.
        with memray.Tracker(path, trace_python_allocators=True):
            yield measured
        measured.peak = memray.FileReader(path).metadata.peak_memory
