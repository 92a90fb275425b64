"""What the machine can do at best, with nothing of ours: the limits that ``python -m profiling compare`` measures others by."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np

from . import machine
from .models import ENTRY, GIB
from .paths.contender import Size, model
from .process import Child

PIECE = 1 << 20  # bytes in one call
PAGE = mmap.PAGESIZE
LIMITS = {  # and what it is, to be read in the report
    "memcpy, warm, 1 thread": "into memory that has been touched before",
    "memcpy, warm, all threads": "the same, a share for each thread",
    "memcpy, fresh huge pages, 1 thread": "into memory that is new, in pages of 2 MiB",
    "memcpy, fresh huge pages, all threads": "the same, by whichever thread is free",
    "page faults, 4 KiB": "new memory is touched once a page, and nothing else",
    "page faults, 2 MiB": "the same with huge pages",
    "write": "to a new file, into the page cache",
    "write and fsync": "to a new file, until it is on the disk",
    "read, warm": "from the page cache into memory that has been touched before",
    "read, fresh huge pages": "the same into memory that is new",
    "mmap": "a file becomes addresses, and no byte moves",
    "SHA-256, 1 thread": "OpenSSL's",
    "SHA-256, all threads": "the same, a share for each thread",
    "sendmsg and recv_into": "a thread sends through a socket to another, 1 MiB a call, into fresh huge pages",
}


def touch(nbytes: int, step: int) -> mmap.mmap:
    """Have the kernel give so many bytes, a page at a time."""
    block, offset = machine.untouched(nbytes)
    np.frombuffer(block, np.uint8, nbytes, offset)[::step] = 1
    return block


def touch_small(nbytes: int) -> mmap.mmap:
    with machine.small_pages():
        return touch(nbytes, PAGE)


def write(source: np.ndarray, path: str, sync: bool) -> None:
    """Write to a new file."""
    if os.path.exists(path):
        os.unlink(path)
    with open(path, "wb", buffering=0) as file:
        left = source.data
        while len(left):
            left = left[file.write(left[:ENTRY]) :]
        if sync:
            os.fsync(file.fileno())


def read(path: str, nbytes: int, place: tuple[mmap.mmap, int] | None = None) -> mmap.mmap:
    """Read a file into fresh huge pages, or to `place`."""
    block, offset = place or machine.untouched(nbytes)
    with open(path, "rb", buffering=0) as file, memoryview(block) as view:
        left = view[offset : offset + nbytes]
        while len(left):
            left = left[file.readinto(left[:ENTRY]) :]
    return block


def mapped(path: str) -> np.ndarray:
    with open(path, "rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def through_a_socket(source: np.ndarray) -> mmap.mmap:
    """Send from one thread to another, which does what a process would."""
    here, there = socket.socketpair()

    def send() -> None:
        left = source.data
        while len(left):
            left = left[here.sendmsg([left[:PIECE]]) :]

    with here, there:
        thread = Thread(target=send)
        thread.start()
        block, offset = machine.untouched(source.nbytes)
        with memoryview(block) as view:
            left = view[offset : offset + source.nbytes]
            while len(left):
                left = left[there.recv_into(left[:PIECE]) :]
        thread.join()
    return block


def limits_case(child: Child, nbytes: str, path: str, passes: str) -> None:
    """Measure all, in turns; in seconds a GiB."""
    size = Size(max(1, int(nbytes) // ENTRY), ENTRY)
    source = np.concatenate([array.view(np.uint8) for array in model(size).values()])
    warm = machine.untouched(source.nbytes + PAGE)
    place = machine.fresh(source)
    threads = os.cpu_count() or 1
    write(source, path, False)
    read(path, source.nbytes, warm)
    works: dict[str, Callable[[], Any]] = {
        "memcpy, warm, 1 thread": lambda: machine.memcpy_shares(source, 1, place),
        "memcpy, warm, all threads": lambda: machine.memcpy_shares(source, threads, place),
        "memcpy, fresh huge pages, 1 thread": lambda: machine.memcpy_pages(source, 1),
        "memcpy, fresh huge pages, all threads": lambda: machine.memcpy_pages(source, threads),
        "page faults, 4 KiB": lambda: touch_small(source.nbytes),
        "page faults, 2 MiB": lambda: touch(source.nbytes, machine.HUGE_PAGE),
        "write": lambda: write(source, path + ".new", False),
        "write and fsync": lambda: write(source, path + ".new", True),
        "read, warm": lambda: read(path, source.nbytes, warm),
        "read, fresh huge pages": lambda: read(path, source.nbytes),
        "mmap": lambda: mapped(path),
        "SHA-256, 1 thread": lambda: machine.sha256(source, 1),
        "SHA-256, all threads": lambda: machine.sha256(source, threads),
        "sendmsg and recv_into": lambda: through_a_socket(source),
    }
    assert list(works) == list(LIMITS)
    works["memcpy, warm, all threads"]()  # touches it
    seconds = machine.turns(works, int(passes))
    child.result(seconds={name: taken / source.nbytes * GIB for name, taken in seconds.items()}, threads=threads)
