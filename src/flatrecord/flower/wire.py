"""What Flower's objects look like on the wire: ``TYPE CHILD,CHILD,... LENGTH``, a zero byte, and the body.

Facts from flwr's ``supercore/inflatable/inflatable_object.py`` and ``app/message/array.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content

if TYPE_CHECKING:
    from .._core.array import Array

CHUNK = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE  # bytes; 5 MiB unless the environment says otherwise


def head(kind: str, children: Iterable[str], nbytes: int) -> bytes:
    """What comes before the body of an object."""
    return HEAD_VALUE_DIVIDER.join((kind, ",".join(children), str(nbytes))).encode() + HEAD_BODY_DIVIDER


def is_chunk(content: bytes) -> bool:
    """Whether an object is an ArrayChunk."""
    return content.startswith(b"ArrayChunk" + HEAD_VALUE_DIVIDER.encode())


def body(content: bytes, kind: str) -> memoryview:
    """The body of an object, without a copy.

    Raises
    ------
    ValueError
        If it is an object of another type, or its head is not that of such a body. Flower passes over that; here an
        object is to have one form only, as its id is computed anew from what it says.
    """
    found, children, _ = get_object_head_values_from_object_content(content)
    if found != kind:
        raise ValueError(f"expected an object of type {kind}, found {found[:80]}")
    view = memoryview(content)[content.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :]
    if not content.startswith(head(kind, children, len(view))):
        raise ValueError(f"the head of an {kind} is not that of {len(view)} bytes")
    return view


def fields(content: bytes, kind: str) -> dict[str, Any]:
    """The JSON object that is the body of an object.

    Raises
    ------
    ValueError
        As `body`; or if it is none.
    """
    try:
        found = json.loads(str(body(content, kind), "utf-8"))
    except RecursionError:
        raise ValueError(f"the JSON of an {kind} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"the JSON of an {kind} is a {type(found).__name__}, not an object")
    return found


def spans(array: Array) -> list[tuple[int, int]]:
    """Where each chunk of an Array begins and ends in its serialized form, in bytes."""
    nbytes = array.nbytes
    return [(start, min(start + CHUNK, nbytes)) for start in range(0, nbytes, CHUNK)]


def run(header: bytes | memoryview, payload: memoryview, start: int, stop: int) -> list[memoryview]:
    """Bytes `start` to `stop` of header and payload: one view, or two where both have a part in it."""
    edge = len(header)
    if start >= edge:
        return [payload[start - edge : stop - edge]]
    if stop <= edge:
        return [memoryview(header)[start:stop]]
    return [memoryview(header)[start:], payload[: stop - edge]]
