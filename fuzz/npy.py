"""Target: the parser of ``.npy`` headers, beside NumPy's."""

import io
import pickle
import re
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from flatrecord import Array
from flatrecord._core.parts import extent

WORDS = (
    *(b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"\x93NUMPY\x03\x00", b"'descr'", b"'fortran_order'", b"'shape'", b"True", b"False"),
    *(b"'<f4'", b"'>i8'", b"'|b1'", b"'<M8[ns]'", b"'<U3'", b"'|S0'", b"'|V2'", b"'|O'", b"'<f1'"),
    *(b"('a', '<i4', (2,))", b"(('t', 'a'), '<i4')"),
    *(b"9223372036854775807", b"\\x00", b"\\u00e9", b"\\\\", b"\\'", b"), }", b", }\n"),
)
NAMES = ("bfloat16", "float8_e5m2", "complex32", "int4", "object", "x")
MOST = 1 << 16  # bytes of a payload that is made up


def seeds() -> Iterator[bytes]:
    """Arrays as NumPy and we write them."""
    titled = np.dtype({"names": ["a", "b"], "formats": ["<i2", "<f8"], "offsets": [0, 2], "titles": ["A", None]})
    dtypes: list[Any] = ["b1", "<i4", ">f8", "<c8", "<c16", "|S3", "<U2", "|S0", "|V0", "<M8[ns]", "<m8[7D]", "|V5", "f2", "u1", titled]
    dtypes += [[("x", "<f4"), ("y", "i1", (2, 2))], [("a", [("b", "<u2"), ("c", "|S1")]), ("é", "?")]]
    dtypes += [[("\u4e00", "<i2")], [("'\"\n\\", "<i2")]]
    for dtype in dtypes:
        for shape in ((), (3,), (2, 0, 3)):
            yield Array(np.zeros(shape, dtype)).data
    yield Array(np.asfortranarray(np.arange(6.0).reshape(2, 3))).data
    yield Array(np.zeros((1,) * 64, "i1")).data
    for name in NAMES[:4]:
        if hasattr(ml_dtypes, name):
            yield Array(np.zeros(2, getattr(ml_dtypes, name))).data
    for descr in ("'<f1'", "'<W4'"):
        text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}\n".encode()
        yield b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(8 if "W" in descr else 2)
    for version in (2, 3):
        text = b"{'descr': '<i2', 'fortran_order': False, 'shape': (1,), }\n"
        yield b"\x93NUMPY" + bytes((version, 0)) + len(text).to_bytes(4, "little") + text + b"ab"


def check(data: bytes) -> None:
    """Parse `data`, and what it is once its lengths are put right, without which hardly a change would get past them."""
    for attempt in dict.fromkeys((data, repaired(data))):
        check_as_it_is(attempt)


def repaired(data: bytes) -> bytes:
    """`data` with the length of the header that is there, and a payload as long as that asks for."""
    prefix = 10 if data[6:7] == b"\x01" else 12
    end = data.find(b"\n", prefix) + 1
    if end == 0:
        return data
    data = data[:8] + (end - prefix).to_bytes(prefix - 8, "little") + data[prefix:]
    try:
        offset, nbytes = extent(data)
    except ValueError:
        return data
    return data if nbytes > MOST else data[:offset] + data[offset:].ljust(nbytes, b"\x7f")[:nbytes]


def check_as_it_is(data: bytes) -> None:
    found = parsed(data)
    if found is None:
        check_that_numpy_writes_no_such(data)
    else:
        check_accepted(data, found)
    stated = re.search(rb"'shape': \(([\d, ]{,99})\)", data)
    shape = () if stated is None else tuple(int(size) for size in stated[1].replace(b" ", b"").split(b",") if size)
    # A name decides only where NumPy does not know the type, or has bytes of no type.
    for name in NAMES if found is None or found.dtype.kind == "V" else NAMES[-1:]:
        named = parsed(data, name, shape)
        if named is not None:
            assert named.dtype == found.dtype if found is not None and name in ("object", "x") else str(named.dtype) == name, named.dtype
            check_round_trip(named)


def parsed(data: bytes, dtype: str = "", shape: tuple[int, ...] = ()) -> np.ndarray | None:
    """What we make of `data`, where `dtype` and `shape` came beside it; empty, they say nothing."""
    try:
        return Array(dtype, shape, "numpy.ndarray", data).numpy()
    except ValueError:
        return None


def check_accepted(data: bytes, found: np.ndarray) -> None:
    assert not found.flags.writeable and not found.dtype.hasobject
    assert found.nbytes <= len(data)
    check_same(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False), found)
    check_round_trip(found)
    if found.itemsize == 0 and found.size > MOST:
        return  # NumPy goes through them one by one, although there is nothing to write
    written = io.BytesIO()
    np.save(written, found, allow_pickle=False)
    assert Array(found).data == written.getvalue()


def check_round_trip(found: np.ndarray) -> None:
    """What was accepted can be written, read, copied and pickled."""
    made = Array(found)
    again = Array(made.dtype, made.shape, made.stype, made.data)
    check_same(again.numpy(), found)
    check_same(again.numpy(copy=True), found)
    assert pickle.loads(pickle.dumps(made, 5)) == made
    assert again == made == Array(again.numpy())


def check_same(one: np.ndarray, other: np.ndarray) -> None:
    assert one.dtype == other.dtype and one.shape == other.shape, f"{one.dtype} {one.shape}, {other.dtype} {other.shape}"
    assert one.tobytes("A") == other.tobytes("A")


def check_that_numpy_writes_no_such(data: bytes) -> None:
    """NumPy accepts more than we do: literals in other words, sizes that are bools, what follows the payload. We read what it writes."""
    readers = {b"\x01\x00": np.lib.format.read_array_header_1_0, b"\x02\x00": np.lib.format.read_array_header_2_0}
    if data[:6] != b"\x93NUMPY" or data[6:8] not in readers:
        return
    try:
        shape, _, dtype = readers[data[6:8]](io.BytesIO(data[8:]))
        # NumPy takes memory before it looks for the payload.
        if dtype.hasobject or dtype.itemsize == 0 or dtype.itemsize * float(np.prod(shape, dtype=float)) > len(data):
            return
        theirs = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        written = io.BytesIO()
        np.save(written, theirs, allow_pickle=False)
    except Exception:  # whatever NumPy raises, it has refused
        return
    ours = parsed(written.getvalue())
    assert ours is not None, f"NumPy writes {written.getvalue()!r:.300}"
    check_same(ours, theirs)
