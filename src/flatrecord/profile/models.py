"""What a model takes, whatever it is kept in: a record, a state_dict, a list of arrays, a network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._core.record import ParametersRecord

DEEPEST = 3  # dicts in dicts: a checkpoint has its state_dict in one
NOTHING = 0, 0


def size_of(value: Any) -> tuple[int, int]:
    """Bytes and number of the arrays in a record, in a dict or list of arrays, in a network, or in the largest that a dict holds.

    Memory that two entries share, as tied weights do, counts once; the state of an optimizer does not. What is no such
    container counts as nothing, and so does what cannot be looked at: a program that is profiled goes on.
    """
    try:
        return _size(value, 0)
    except Exception:
        return NOTHING


def _size(value: Any, depth: int) -> tuple[int, int]:
    if isinstance(value, ParametersRecord):
        return value.count_memory(), len(value)
    if isinstance(value, dict):
        if "param_groups" in value:
            return NOTHING  # an optimizer's state_dict
        values: Iterable[Any] = list(dict.values(value))  # and not what a subclass would make of them
    elif isinstance(value, (list, tuple)):
        values = value
    elif type(value).__name__ in ("ArrayRecord", "ParametersRecord"):  # stock Flower's
        values = list(value.values())
    elif hasattr(value, "named_parameters") and hasattr(value, "named_buffers"):  # torch's Module
        values = [*dict(value.named_parameters()).values(), *dict(value.named_buffers()).values()]
    else:
        return NOTHING
    own = dict(filter(None, map(_memory, values)))
    nested = (_size(inner, depth + 1) for inner in values if depth < DEEPEST and isinstance(inner, (dict, ParametersRecord)))
    return max([(sum(own.values()), len(own)), *nested])


def _memory(value: Any) -> tuple[tuple[int, int], int] | None:
    """What tells an array's memory from another's, and its size in bytes; None for what is no array."""
    try:
        if hasattr(value, "untyped_storage"):  # of which an expanded tensor repeats a part
            nbytes, address = min(value.nbytes, value.untyped_storage().nbytes()), value.data_ptr()
        elif hasattr(value, "__array_interface__"):
            nbytes, address = value.nbytes, value.__array_interface__["data"][0]
        elif hasattr(value, "stype"):  # an Array, Flower's or ours
            nbytes, address = getattr(value, "nbytes", None) or len(value.data), 0
        else:
            return None
    except Exception:  # of a library's own array types, such as sparse tensors: these have no memory that could be named
        return None
    return (address or id(value), nbytes), nbytes
