"""Who may write where: no memory may have two owners who do not know of each other, of whom one can write."""

import ctypes
import gc
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flatrecord import Array


@dataclass(frozen=True)
class Owner:
    """Somebody who shows a range of memory."""

    name: str
    start: int
    end: int
    writes: bool
    family: int | None  # those of one family show the same memory by their owner's word; None for nobody's


def shown(thing: Any) -> np.ndarray:
    """The elements of an ndarray, memoryview or tensor where they are, as bytes without a meaning, writable if they are.

    Nothing about the thing changes by this: no storage of torch's is exported, which it would remember.
    """
    if isinstance(thing, memoryview):
        thing = np.asarray(thing)
    if isinstance(thing, np.ndarray):
        return np.asarray(thing).view(f"V{thing.itemsize}") if thing.itemsize else np.empty(0, "V1")
    if 0 in thing.shape:
        return np.empty(thing.shape, "V1")
    storage, size = thing.untyped_storage(), thing.element_size()
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    strides = [stride * size for stride in thing.stride()]
    array = np.ndarray(tuple(thing.shape), f"V{size}", memory, thing.storage_offset() * size, strides)
    array.flags.writeable = not thing.is_inference()
    return array


def span(thing: Any) -> tuple[int, int]:
    """First and last address of a thing, the latter exclusive; the same twice if it is empty."""
    array = shown(thing)
    return np.lib.array_utils.byte_bounds(array) if array.size and array.itemsize else (0, 0)


def payload(array: Array) -> tuple[int, int]:
    """Address and length of an Array's payload; (0, 0) if it is empty.

    Read behind the Array's back, as to ask for a view would put a Buffer around an ndarray that was taken.
    """
    memory = next(found for found in gc.get_referents(array) if isinstance(found, np.ndarray) or type(found).__name__ == "Buffer")
    if (memory.nbytes if isinstance(memory, np.ndarray) else len(memory)) == 0:
        return 0, 0
    if isinstance(memory, np.ndarray):
        return memory.__array_interface__["data"][0], memory.nbytes
    return np.frombuffer(memory, "u1").__array_interface__["data"][0], len(memory)


def check(owners: Iterable[Owner]) -> None:
    """Raise an AssertionError if somebody may write to memory that is another's, too."""
    alive: list[Owner] = []
    for owner in sorted(owners, key=lambda owner: owner.start):
        if owner.start == owner.end:
            continue
        alive = [other for other in alive if other.end > owner.start]
        for other in alive:
            if (owner.writes or other.writes) and (owner.family is None or owner.family != other.family):
                first, second = (owner, other) if owner.writes else (other, owner)
                raise AssertionError(f"{first.name} may write to the memory of {second.name}")
        alive.append(owner)


def check_read_only(thing: Any) -> None:
    """Raise an AssertionError if what a record has handed out to be read leads to something that can be written to."""
    while isinstance(thing, (np.ndarray, memoryview)):
        if isinstance(thing, np.ndarray):
            assert thing.nbytes == 0 or not thing.flags.writeable, "a writable ndarray is below a read-only view"
            thing = thing.base
        else:
            assert thing.readonly, "a writable memoryview is below a read-only view"
            thing = thing.obj
    assert thing is None or memoryview(thing).readonly, "a writable buffer is below a read-only view"


def is_tensor(thing: Any) -> bool:
    return "torch" in sys.modules and isinstance(thing, sys.modules["torch"].Tensor)
