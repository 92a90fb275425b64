"""What the machine can do at best, measured with nothing of ours: copies into fresh memory, hashes, small pages."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import Thread
from typing import Any

import numpy as np

HUGE_PAGE = 2 << 20
PR_SET_THP_DISABLE = 41  # linux/prctl.h


def together(work: Callable[[int], object], threads: int) -> None:
    """Call ``work(0)`` to ``work(threads - 1)`` at the same time."""
    others = [Thread(target=work, args=(i,)) for i in range(1, threads)]
    for thread in others:
        thread.start()
    work(0)
    for thread in others:
        thread.join()


def turns(works: dict[str, Callable[[], Any]], passes: int) -> dict[str, float]:
    """Seconds of each work's fastest turn; what it returns is let go of after the clock has stopped."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(passes):
        for name, work in works.items():
            began = time.perf_counter()
            result = work()
            best[name] = min(best[name], time.perf_counter() - began)
            del result
    return best


def untouched(nbytes: int) -> tuple[mmap.mmap, int]:
    """Memory that nobody has touched, for so many bytes in huge pages, and where in it a huge page begins."""
    block = mmap.mmap(-1, nbytes + 2 * HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        block.madvise(mmap.MADV_HUGEPAGE)
    return block, -ctypes.addressof(ctypes.c_char.from_buffer(block)) % HUGE_PAGE


def fresh(source: np.ndarray) -> tuple[mmap.mmap, int]:
    """Memory that nobody has touched, in huge pages, and the address in it at which a copy of `source` is fastest.

    That is where a huge page begins, but as far into a page as `source` begins: see `allocate` in ``_core/buffer.pyx``.
    """
    block, offset = untouched(source.nbytes)
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    return block, start + offset + source.ctypes.data % mmap.PAGESIZE


def memcpy_shares(source: np.ndarray, threads: int, place: tuple[mmap.mmap, int] | None = None) -> mmap.mmap:
    """Copy into fresh huge pages, or to `place`, as `fresh` gives it: one memcpy for each thread."""
    block, target = place or fresh(source)
    share = -(-source.nbytes // threads)

    def work(i: int) -> None:
        begin = min(i * share, source.nbytes)
        ctypes.memmove(target + begin, source.ctypes.data + begin, min(share, source.nbytes - begin))

    together(work, threads)
    return block


def memcpy_pages(source: np.ndarray, threads: int) -> mmap.mmap:
    """Copy into fresh huge pages: one memcpy for each page, by whichever thread is free."""
    block, target = fresh(source)
    pages, shift = count(), target % HUGE_PAGE

    def work(i: int) -> None:
        while (end := (next(pages) + 1) * HUGE_PAGE - shift) - HUGE_PAGE < source.nbytes:
            begin = max(end - HUGE_PAGE, 0)
            ctypes.memmove(target + begin, source.ctypes.data + begin, min(end, source.nbytes) - begin)

    together(work, threads)
    return block


def sha256(source: np.ndarray, threads: int) -> None:
    """Hash an equal share of `source` in each thread."""
    share = -(-source.nbytes // threads)
    together(lambda i: hashlib.sha256(source[i * share : (i + 1) * share].data).digest(), threads)


@contextmanager
def small_pages() -> Iterator[None]:
    """Give this process no huge pages, whoever asks for them; only on Linux."""
    libc = ctypes.CDLL(None)

    def disable(on: int) -> None:
        if sys.platform == "linux":
            libc.prctl(PR_SET_THP_DISABLE, on, 0, 0, 0)

    disable(1)
    try:
        yield
    finally:
        disable(0)
