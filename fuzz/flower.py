"""Target: what a peer sends by Flower's protocol, pulled and inflated by us, beside stock Flower.

An input is some objects as they go over the wire, children before their parents; the last one is what is pulled. They
stand for themselves, but for what no fuzzer would guess: ``@0`` is the id of the first object, and so on; ``=`` at the end
of a head is the length of the body. An object after a ``!`` comes with an id that is not its own. If the first part begins
with ``order``, its digits are the objects in the order of the tree that the peer announces.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import ml_dtypes
import numpy as np
from flwr.app import Array as StockArray, ArrayRecord as StockRecord
from flwr.app.message.arraychunk import ArrayChunk as StockChunk
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_children_ids_from_object_content,
    get_object_id,
)
from flwr.supercore.inflatable.inflatable_utils import inflatable_class_registry, inflate_object_from_contents

from flatrecord.flower import Array, ArrayChunk, ArrayRecord, limits, pulling
from flatrecord.flower.landing import Landing
from flatrecord.flower.pulling import pull_and_inflate_object_from_tree
from flatrecord.flower.wire import CHUNK

DIVIDER = b"\n--\n"
MOST = 1 << 16  # bytes that the arrays of an input may take
WORDS = (
    *(DIVIDER, b"ArrayChunk  =\x00", b"Array @0 =\x00", b"ArrayRecord @1 =\x00", b"@0", b"@1,@2", b"order 01", b"!", b"\x00"),
    *(b'"arraychunk_ids": [0, 1]', b'"dtype": "float32"', b'"shape": [3]', b'"stype": "numpy.ndarray"', b'"@1"'),
    *(b"\\ud800", b"null", b"NaN", b"-1", b"1e9", b"9" * 20),
    *(b"\x93NUMPY\x01\x00", b"'descr': '<f4'", b"'fortran_order': False", b"'shape': (3,)"),
)
OURS = {"Array": Array, "ArrayChunk": ArrayChunk, "ArrayRecord": ArrayRecord}
STOCK = {"Array": StockArray, "ArrayChunk": StockChunk, "ArrayRecord": StockRecord}


def seeds() -> Iterator[bytes]:
    """Records as we send them, and such as no honest peer would send."""
    yield sent({"x": np.arange(3.0), "y": np.zeros((2, 2), "i1")})
    yield sent({"x": np.arange(300, dtype="i2"), "zeros": np.zeros(1000), "f": np.asfortranarray(np.ones((3, 40)))})
    yield sent({"none": np.zeros((0, 3)), "scalar": np.array(1), "text": np.array(["ab"]), "void": np.zeros(2, "V3")})
    yield sent({"bfloat16": np.ones(2, ml_dtypes.bfloat16), "own": Array("x", (2,), "y", b"zz"), "empty": Array("x", (), "y", b"")})
    yield sent({"broken": Array("float32", (3,), "numpy.ndarray", b"\x93NUMPY")})
    yield sent({})
    yield sent({"a": np.ones(3), "b": np.ones(3)})
    whole = sent({"x": np.arange(300, dtype="i2"), "y": np.ones(3)})
    yield b"order 0123456" + DIVIDER + whole
    yield b"order 6543210" + DIVIDER + whole
    yield whole.replace(b"ArrayChunk", b"!ArrayChunk", 1)
    yield whole.replace(b"Array @0", b"Array @0,@0", 1)
    again = sent({"x": np.zeros(20, "i1")})
    yield again.replace(b"[0]", b"[%s]" % b",".join([b"0"] * 400))
    yield again.replace(b'{"x": "@1"}', b"{%s}" % b",".join(b'"%d":"@1"' % i for i in range(400)))
    for broken in (b"{}", b"[]", b"[" * 2000, b'{"dtype": 1, "shape": [], "stype": "", "arraychunk_ids": []}', b'{"x": [1]}'):
        yield b"Array  =\0" + broken
        yield b"ArrayRecord  =\0" + broken


def sent(entries: dict[str, Any]) -> bytes:
    """An input that is this record."""
    record = ArrayRecord(entries)
    parts: list[bytes] = []
    places: dict[str, int] = {}

    def add(found: InflatableObject, content: bytes) -> None:
        for object_id, place in places.items():
            content = content.replace(object_id.encode(), b"@%d" % place)
        places[found.object_id] = len(parts)
        start, zero, body = content.partition(b"\0")
        parts.append(start.rpartition(b" ")[0] + b" =" + zero + body)

    for array in record.values():
        for chunk in array.children.values():
            if chunk.object_id not in places:
                add(chunk, chunk.deflate())
        if array.object_id not in places:
            add(array, array.deflate())
    add(record, record.deflate())
    return DIVIDER.join(parts)


def objects(data: bytes) -> tuple[list[str], dict[str, bytes]]:
    """The ids of an input's objects, in order, and the contents by them."""
    ids: list[str] = []
    contents: dict[str, bytes] = {}
    for part in data.split(DIVIDER):
        honest = not part.startswith(b"!")
        content = part if honest else part[1:]
        if not content.startswith(b"ArrayChunk"):
            content = re.sub(rb"@(\d{1,2})", lambda found: ids[int(found[1])].encode() if int(found[1]) < len(ids) else found[0], content)
        start, zero, body = content.partition(b"\0")
        if start.endswith(b" ="):
            content = start[:-1] + b"%d" % len(body) + zero + body
        ids.append(get_object_id(content if honest else part))
        contents[ids[-1]] = content
    return ids, contents


def check(data: bytes) -> None:
    order, divider, rest = data.partition(DIVIDER) if data.startswith(b"order") else (b"", b"", data)
    ids, contents = objects(rest)
    announced = [ids[digit - ord("0")] for digit in order[5:] if 0 <= digit - ord("0") < len(ids)] if divider else ids
    announced = [name for name in announced if name != ids[-1]] + ids[-1:]
    lies = {name for name, content in contents.items() if get_object_id(content) != name}

    pulled = outcome(lambda: pull(announced, contents))
    inflated = outcome(lambda: inflate_object_from_contents(ids[-1], dict(contents)))
    stock = stock_outcome(ids[-1], contents)
    assert pulled is None or not lies & set(announced)
    if pulled is not None:
        assert fields(pulled) == fields(inflated) and taken_by(pulled) <= MOST
    if inflated is not None:
        room = taken_by(inflated) <= MOST and CHUNK * len(announced) <= MOST // 2
        assert pulled is not None or lies or set(announced) != below(ids[-1], contents) or not room
        assert fields(inflated) == fields(stock)
        assert stock is not None  # which fields would tell
        check_again(inflated, stock)
    elif stock is not None:
        check_that_stock_sends_no_such(stock)


def check_that_stock_sends_no_such(stock: InflatableObject) -> None:
    """Stock Flower takes more than we do: heads that do not agree with their bodies, indices from the end. We take what it sends."""
    contents = {name: found.deflate() for name, found in get_all_nested_objects(stock).items()}
    arrays = stock.values() if isinstance(stock, StockRecord) else [stock] if isinstance(stock, StockArray) else []
    if all(size >= 0 for array in arrays for size in array.shape):  # but for this, which is no shape
        assert fields(inflate_object_from_contents(stock.object_id, contents)) == fields(stock)


def below(root: str, contents: dict[str, bytes]) -> set[str]:
    """The ids of an object and of all that it is made of."""
    return {root}.union(*(below(child, contents) for child in get_object_children_ids_from_object_content(contents[root])))


def outcome(call: Callable[[], InflatableObject]) -> InflatableObject | None:
    """What comes of `call`; None if it is refused."""
    try:
        return call()
    except (ValueError, KeyError):  # a KeyError is Flower's own: an object is missing, or of a kind that there is not
        return None


def stock_outcome(root: str, contents: dict[str, bytes]) -> InflatableObject | None:
    """What stock Flower makes of it; None if it refuses, by whatever error."""
    inflatable_class_registry.update(STOCK)
    try:
        return inflate_object_from_contents(root, dict(contents))
    except Exception:
        return None
    finally:
        inflatable_class_registry.update(OURS)


def pull(announced: list[str], contents: dict[str, bytes]) -> InflatableObject:
    """Pull the last of some objects from the peer that announces them; no more memory is taken than they have, or can have."""
    taken, most = 0, CHUNK * len(announced) + sum(map(len, contents.values()))

    def counted(header: bytes, nbytes: int) -> Landing:
        nonlocal taken
        taken += nbytes
        assert taken <= most, f"{taken} bytes are taken, {most} at most can come"
        return Landing(header, nbytes)

    *others, root = announced
    tree = ObjectTree(object_id=root, children=[ObjectTree(object_id=name) for name in others])
    # In one thread, so that an input always does the same.
    one_thread = patch.multiple(pulling, Landing=counted, together=lambda work, count, name: work(0))
    with one_thread, patch.multiple(limits, MOST=MOST, BESIDE=0, NAMED=0):
        return pull_and_inflate_object_from_tree(tree, contents.__getitem__, lambda _: None)


def taken_by(found: InflatableObject) -> int:
    """How many bytes its Arrays have."""
    arrays = list(found.values()) if isinstance(found, ArrayRecord) else [found] if isinstance(found, Array) else []
    return sum(array.nbytes for array in arrays)


def fields(found: InflatableObject | None) -> object:
    if isinstance(found, StockRecord):
        return {key: fields(array) for key, array in found.items()}
    if isinstance(found, StockArray):
        return found.dtype, tuple(found.shape), found.stype, found.data
    return found and bytes(found.data)  # type: ignore[attr-defined]  # of a chunk


def check_again(found: InflatableObject, stock: InflatableObject) -> None:
    """What came in goes out as stock Flower would send it, and comes in again."""
    assert found.object_id == stock.object_id and found.deflate() == stock.deflate()
    assert fields(type(found).inflate(found.deflate(), found.children)) == fields(found)
    for array in found.values() if isinstance(found, ArrayRecord) else [found] if isinstance(found, Array) else []:
        for copy in (False, True):
            with suppress(TypeError, ValueError):
                array.numpy(copy=copy).tobytes()
