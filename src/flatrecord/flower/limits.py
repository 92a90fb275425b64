"""How much memory a message may take, on the word of whoever sends it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from operator import index

from flwr.supercore.inflatable.inflatable_object import (
    get_object_children_ids_from_object_content,
    get_object_head_values_from_object_content,
)

from .._core import environment
from .wire import fields


def machine_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


MOST = machine_memory() if environment.MESSAGE_MIB is None else environment.MESSAGE_MIB << 20  # bytes of arrays; None for no limit
BESIDE = 64 << 20  # bytes that are allowed beside, for all that is no array, and for chunks that come before their turn
NAMED = 512  # bytes that count for each time that a chunk or an Array is named, as an empty one takes memory too


def check(nbytes: int, what: str) -> None:
    """Raise a ValueError if a message may not take so many bytes.

    Parameters
    ----------
    nbytes : int
        The bytes known so far.
    what : str
        What takes them, for the message of the error.
    """
    if MOST is not None and nbytes > MOST + BESIDE:
        raise ValueError(
            f"{what} {nbytes:,} bytes or more, and a message may take {MOST + BESIDE:,}: "
            "FLATRECORD_MESSAGE_MIB in the environment says how much"
        )


def check_arrays(contents: Mapping[str, bytes]) -> None:
    """Raise a ValueError if the Arrays in some objects would take more memory than a message may, before any is inflated.

    By Flower's protocol an Array can name one chunk, and a record one Array, as often as it likes. Each time takes memory of
    its own.

    Parameters
    ----------
    contents : mapping of str to bytes
        Contents by object ids. What is not as it should be counts nothing: it is refused when it is inflated.
    """
    sizes: dict[str, int] = {}  # of chunks, then of Arrays too
    found: dict[str, list[str]] = {"Array": [], "ArrayRecord": []}
    for object_id, content in contents.items():
        try:
            kind, _, nbytes = get_object_head_values_from_object_content(content)
        except ValueError:
            continue
        if kind == "ArrayChunk":
            sizes[object_id] = nbytes
        elif kind in found:
            found[kind].append(object_id)
    total = 0
    for object_id in found["Array"]:
        try:
            chunks = [sizes[name] for name in _chunks_of(contents[object_id])]
        except (KeyError, IndexError, TypeError, ValueError):
            continue
        sizes[object_id] = sum(chunks)
        total += sizes[object_id] + NAMED * len(chunks)
        check(total, "the arrays of the message would take")
    for object_id in found["ArrayRecord"]:
        try:
            named = list(fields(contents[object_id], "ArrayRecord").values())
            again = sum(sizes[name] for name in named) - sum(sizes[name] for name in set(named))
        except (KeyError, TypeError, ValueError):
            continue
        total += again + NAMED * len(named)
        check(total, "the arrays of the message, some of which are there several times, would take")


def _chunks_of(content: bytes) -> Iterator[str]:
    """The ids of an Array's chunks, one for each place that the chunk has."""
    names = get_object_children_ids_from_object_content(content)
    return (names[index(place)] for place in fields(content, "Array")["arraychunk_ids"])
