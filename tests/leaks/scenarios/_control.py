"""Leaks on purpose, one in each measure: `test_leaks` asserts that each is reported, so that the others can be believed."""

import ctypes
import mmap
import os

from _measuring import report, turn

kept: list[object] = []
add_reference = ctypes.pythonapi.Py_IncRef
add_reference.argtypes = [ctypes.py_object]
allocate = ctypes.CDLL(None).malloc
allocate.argtypes, allocate.restype = [ctypes.c_size_t], ctypes.c_void_p


class Shared:
    """One object, so that a reference too many costs no memory. (None is immortal on Python 3.12 and up.)"""


shared = Shared()
many = [shared] * 1_000_000
turns = iter(range(1 << 40))


@turn
def blocks():
    kept.append(object())


@turn
def heap():
    allocate(4096)


@turn(turns=1000)  # as the system allows some 60,000 mappings
def mapped():
    kept.append(mmap.mmap(-1, 4096))


@turn(turns=20)  # as the system allows some 1000
def descriptors():
    kept.append(os.dup(0))


@turn
def objects():
    kept.append([])


@turn
def references():
    add_reference(shared)


@turn
def references_to_a_type():
    add_reference(Shared)


@turn
def references_too_few():
    many.pop()


@turn
def blocks_once_in_a_thousand_turns():
    if next(turns) % 1000 == 0:
        kept.append(object())


@turn
def objects_in_a_cycle():
    cycle = []
    cycle.append(cycle)


@turn
def nothing_at_all():
    [object() for _ in range(10)]


report()
