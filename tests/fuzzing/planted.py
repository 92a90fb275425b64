"""A target with a bug, for which ``PLANTED`` in the environment says what it is.

``overflow``: some bytes are said to be longer than they are, so that the header parser reads beyond their end. It does so only
once it has been led past the magic string, the version and the length of a header, and far enough into the header itself,
by what the compiled code tells the fuzzer. ``memory``: as much is taken as an input asks for.
"""

import ctypes
import os

from flatrecord._core.parts import extent

WORDS = ()
PLANTED = os.environ["PLANTED"]
BEYOND = 4 if PLANTED == "overflow" else 0  # bytes that are not there

_malloc, _free = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
_malloc.restype, _malloc.argtypes, _free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]


def check(data: bytes) -> None:
    if PLANTED == "memory" and len(data) > 3:
        bytearray(data[3] << 20)
    block = _malloc(len(data))
    ctypes.memmove(block, data, len(data))
    try:
        extent(memoryview((ctypes.c_char * (len(data) + BEYOND)).from_address(block)))
    except ValueError:
        pass
    finally:
        _free(block)
