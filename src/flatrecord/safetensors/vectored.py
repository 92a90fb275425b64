"""Lists of memoryviews that are moved by one system call, which may stop short; one after the other where there is no such call."""

from __future__ import annotations

import io
import os

MOST = 512  # views in one call; Linux takes 1024 (IOV_MAX)
SMALL = 64 << 10  # shorter views are joined where each would be a call of its own


def advance(views: list[memoryview], count: int) -> None:
    """Take away the first `count` bytes, which have been moved."""
    whole = 0
    while whole < len(views) and count >= len(views[whole]):
        count -= len(views[whole])
        whole += 1
    del views[:whole]
    if count:
        views[0] = views[0][count:]


def first_of(views: list[memoryview]) -> memoryview:
    """The first view, or all the short ones at the beginning as one."""
    if len(views[0]) >= SMALL:
        return views[0]
    few: list[memoryview] = []
    while len(few) < len(views) and len(views[len(few)]) < SMALL:
        few.append(views[len(few)])
    return memoryview(b"".join(few))


def write_to(descriptor: int, views: list[memoryview]) -> int:
    """Write to where a file is at; how many bytes were written."""
    if hasattr(os, "writev"):
        return os.writev(descriptor, views)
    return os.write(descriptor, first_of(views))


def reads_anywhere() -> bool:
    """Whether several threads can read from one descriptor at once."""
    return hasattr(os, "preadv")


def read_at(descriptor: int, views: list[memoryview], offset: int) -> int:
    """Read from a place of a file; how many bytes were read. One thread at a time, unless `reads_anywhere`."""
    if reads_anywhere():
        return os.preadv(descriptor, views, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    with io.FileIO(descriptor, closefd=False) as file:
        return file.readinto(views[0])


def bytes_at(descriptor: int, nbytes: int, offset: int) -> bytes:
    """So many bytes from a place of a file, or fewer. One thread at a time, unless `reads_anywhere`."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, nbytes, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, nbytes)
