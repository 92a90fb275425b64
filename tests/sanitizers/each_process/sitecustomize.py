"""In each process under AddressSanitizer: what is allocated by an import is not looked at for leaks.

CPython and NumPy keep some of that until the process ends, without a pointer to it (53 blocks of 3120 bytes where NumPy 2.4 is
imported on CPython 3.11). There is nothing else that is left out, but for what uses `left_out`, and for ``leaks.supp``.
"""

import builtins
import ctypes
import functools
import sys

_sanitizer = ctypes.CDLL(None)
_import = builtins.__import__
_depth = 0


def left_out(function):
    """`function`, whose allocations are not looked at for leaks."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        _sanitizer.__lsan_disable()
        try:
            return function(*args, **kwargs)
        finally:
            _sanitizer.__lsan_enable()

    return wrapped


@left_out
def _imported(*args, **kwargs):
    global _depth
    _depth += 1
    try:
        found = _import(*args, **kwargs)
        if _depth == 1 and sys.modules.get("torch") is not None:
            _warm_up(sys.modules["torch"])
        return found
    finally:
        _depth -= 1


@functools.cache
def _warm_up(torch):
    """Let torch 2.13 parse the names of an argument that it never lets go of: 61 bytes when the first Parameter is made."""
    torch.nn.Parameter(torch.zeros(0))


if hasattr(_sanitizer, "__lsan_disable"):
    builtins.__import__ = _imported
