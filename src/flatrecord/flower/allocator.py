"""The C library's allocator, told to give large blocks back."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3  # glibc's malloc.h
LARGE = 1 << 20  # bytes


def give_back_large_blocks() -> bool:
    """Let blocks of 1 MiB and more go back to the system when they are freed.

    glibc starts out so, but raises the limit to as much as 32 MiB each time that a larger block is freed, and then
    keeps blocks below it: chunks of a message and tensors of a model that are long gone stay resident
    (https://man7.org/linux/man-pages/man3/mallopt.3.html, M_MMAP_THRESHOLD).

    Returns
    -------
    bool
        Whether this C library has such a setting. Others (musl, macOS, Windows) have no need of one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return mallopt(M_MMAP_THRESHOLD, LARGE) == 1
