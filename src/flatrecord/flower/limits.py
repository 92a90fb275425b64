"""How much memory a message may take, on the word of whoever sends it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from operator import index

from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content

from .._core import environment
from .wire import fields


def machine_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


MOST = machine_memory() if environment.MESSAGE_MIB is None else environment.MESSAGE_MIB << 20  # bytes; None for no limit


def check(nbytes: int, what: str) -> None:
    """Raise a ValueError if so many bytes are more than a message may take.

    Parameters
    ----------
    nbytes : int
        What is known of by now.
    what : str
        What takes them, for the message of the error.
    """
    if MOST is not None and nbytes > MOST:
        raise ValueError(
            f"a message was refused: {what} {nbytes:,} bytes or more, and {MOST:,} are allowed: "
            "FLATRECORD_MESSAGE_MIB in the environment allows more"
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
    arrays: list[tuple[str, list[str], bytes]] = []
    records: list[bytes] = []
    for object_id, content in contents.items():
        kind, names, nbytes = get_object_head_values_from_object_content(content)
        if kind == "ArrayChunk":
            sizes[object_id] = nbytes
        elif kind == "Array":
            arrays.append((object_id, names, content))
        elif kind == "ArrayRecord":
            records.append(content)
    total = 0
    for object_id, names, content in arrays:
        try:
            sizes[object_id] = sum(sizes[names[index(i)]] for i in fields(content, "Array")["arraychunk_ids"])
        except (KeyError, IndexError, TypeError, ValueError):
            continue
        total += sizes[object_id]
        check(total, "its arrays would take")
    for content in records:
        try:
            named = list(fields(content, "ArrayRecord").values())
            total += sum(map(sizes.__getitem__, named)) - sum(map(sizes.__getitem__, set(named)))
        except (KeyError, TypeError, ValueError):
            continue
        check(total, "its arrays, some of which are there several times, would take")
