"""What a model takes, whatever it is kept in: a record, a state_dict, a list of arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._core.record import ParametersRecord

DEEPEST = 3  # dicts in dicts: a checkpoint has its state_dict in one


def size_of(value: Any, depth: int = 0) -> tuple[int, int]:
    """Bytes and number of the arrays in a record, in a dict or list of arrays, or in the largest one that a dict holds.

    Memory that two entries share, as tied weights do, counts once. What is no such container counts as nothing.
    """
    if isinstance(value, ParametersRecord):
        return value.count_memory(), len(value)
    if isinstance(value, dict):
        values: Iterable[Any] = list(value.values())
    elif isinstance(value, (list, tuple)):
        values = value
    elif type(value).__name__ in ("ArrayRecord", "ParametersRecord"):  # stock Flower's
        try:
            values = list(value.values())
        except KeyError:  # not yet initialized
            return 0, 0
    else:
        return 0, 0
    own = dict(filter(None, map(_memory, values)))
    nested = (size_of(inner, depth + 1) for inner in values if depth < DEEPEST and isinstance(inner, (dict, ParametersRecord)))
    return max([(sum(own.values()), len(own)), *nested])


def _memory(value: Any) -> tuple[tuple[int, int], int] | None:
    """What tells an array's memory from another's, and its size in bytes; None for what is no array."""
    try:
        if hasattr(value, "untyped_storage"):
            nbytes, address = value.nbytes, value.data_ptr()
        elif hasattr(value, "__array_interface__"):
            nbytes, address = value.nbytes, value.__array_interface__["data"][0]
        elif hasattr(value, "stype"):  # an Array, Flower's or ours
            nbytes, address = getattr(value, "nbytes", None) or len(value.data), 0
        else:
            return None
    except Exception:  # of a library's own array types, such as sparse tensors: these have no memory that could be named
        return None
    return (address or id(value), nbytes), nbytes
