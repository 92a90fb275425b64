"""In each process under AddressSanitizer: what is allocated by an import is not looked at for leaks.

CPython and NumPy keep some of that until the process ends, without a pointer to it (53 blocks of 3120 bytes where NumPy 2.4 is
imported on CPython 3.11). There is nothing else that is left out, but for what `left_out` names.
"""

import builtins
import ctypes
import functools

_sanitizer = ctypes.CDLL(None)
_import = builtins.__import__


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


if hasattr(_sanitizer, "__lsan_disable"):
    builtins.__import__ = left_out(_import)
