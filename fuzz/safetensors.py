"""Target: the safetensors reader, from a mapped file, a file and a stream, beside the `safetensors` library."""

import atexit
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import safetensors
from safetensors.numpy import save as their_save

from flatrecord import Array, ParametersRecord
from flatrecord._core.parts import blank
from flatrecord.safetensors import checksums, files, inspect, load, read, reading, save, write
from flatrecord.safetensors.layout import DTYPES, MAX_AXES

WORDS = (
    *(b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"flatrecord"'),
    *(b'"F32"', b'"BF16"', b'"U8"', b'"F4"', b'"C64"', b'"F8_E5M2"', b'"BOOL"', b"null", b"NaN", b"-1"),
    *(b"1e9", b"[0,0]", b"[]", b"{}", b'":{"', b'\\"sha256\\"', b'\\"serialized\\"', b'\\"numpy.ndarray\\"'),
    *(b"9223372036854775807", b"18446744073709551616", b"\\u0000", b"\\ud800", b"\\\\u00e9", b"\\u0093NUMPY\\u0001"),
)
BYTES_OF_FOUR = {
    **{"BF16": 8, "F8_E4M3": 4, "F8_E5M2": 4, "F8_E8M0": 4, "C64": 32, "F4": 2, "F6_E2M3": 3},
    **{"U16": 8, "I16": 8, "U32": 16, "U64": 32},
}
MOST = 1 << 16  # bytes of payload that are made up

FOLDER = Path(tempfile.mkdtemp(prefix="flatrecord-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
PATH, AGAIN, INDEX = (FOLDER / name for name in ("x.safetensors", "again.safetensors", "x.safetensors.index.json"))


def seeds() -> Iterator[bytes]:
    """Records as we write them, one as the library does, and an index of several files."""
    several = {
        **{f"layer.{i}": np.ones((2, 3), dtype) for i, dtype in enumerate(("<f4", "i8", "?", "<f2", "u1", ">i4"))},
        "é": np.array(7),
        "none": np.zeros((0, 3), "<f8"),
    }
    restored: dict[str, Any] = {"c": np.ones(3, "c16"), "own": Array("x", [2], "y", b"zz"), "s": np.zeros(2, [("a", "<i2"), ("b", "S3")])}
    one = {"a": np.zeros(3, "u1")}
    for given, metadata in ((several, None), (restored, {"format": "pt"}), ({}, None), ({}, {"a": "b\n"}), (one, None)):
        stream = io.BytesIO()
        write(given, stream, metadata)
        yield stream.getvalue()
    save({"a": np.arange(4), "b": np.zeros(2, "<m8[s]")}, PATH, checksum=True)
    yield PATH.read_bytes()
    yield their_save({"w": np.ones((2, 2), "<f4"), "b": np.zeros(2, "<f8")}, {"k": "v"})
    for code, nbytes in BYTES_OF_FOUR.items():
        yield repaired(headed({"x": {"dtype": code, "shape": [4], "data_offsets": [0, nbytes]}}))
    # One that is read to its place at once, one that is cut off, one that goes round in its JSON, and one that is no object.
    yield headed({"large": {"dtype": "U8", "shape": [2, MOST // 2], "data_offsets": [0, MOST]}})
    yield headed({"x": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}) + b"1234"
    yield headed({})[:-1] + b'"x":' + b"[" * 2000 + b"}"
    yield headed({"__metadata__": {"flatrecord": "[]"}})
    yield json.dumps({"metadata": {}, "weight_map": {"a": "x.safetensors", "b": "again.safetensors"}}).encode()
    yield b'{"weight_map": {"a": "../x", "b": 1}}'


def headed(header: object) -> bytes:
    """A file with this header, and nothing more."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def check(data: bytes) -> None:
    """Read `data`, and what it is once its lengths are put right, without which hardly a change would get past them."""
    if data[:1] == b"{":
        check_index(data)
        return
    for attempt in dict.fromkeys((data, repaired(data))):
        check_as_it_is(attempt)


def repaired(data: bytes) -> bytes:
    """`data` with the length of the header that is there, and as many bytes of payload as that asks for."""
    end = data.rfind(b"}") + 1
    if end < 10:
        return data
    header = data[8:end]
    stops = [int(stop) for stop in re.findall(rb"\d{1,5}(?=\s*\])", header)]
    nbytes = min(max(stops, default=0), MOST)
    return len(header).to_bytes(8, "little") + header + data[end:].ljust(nbytes, b"\x7f")[:nbytes]


def check_index(data: bytes) -> None:
    """An index, which lists files beside it; there are none."""
    INDEX.write_bytes(data)
    for call in (load, inspect):
        with suppress(ValueError, FileNotFoundError):
            call(INDEX)


def check_as_it_is(data: bytes) -> None:
    PATH.write_bytes(data)
    stream = io.BytesIO(data)
    calls: tuple[Callable[[], ParametersRecord], ...] = (
        lambda: load(PATH),
        lambda: load(PATH, mmap=False),
        lambda: read(stream, limit=len(data)),
    )
    mapped, loaded, streamed = (outcome(call, len(data)) for call in calls)
    described = None
    try:
        described = inspect(PATH)
    except ValueError:
        assert mapped is None
    assert fields(mapped) == fields(loaded)
    if mapped is not None or (streamed is not None and stream.tell() == len(data)):
        assert fields(mapped) == fields(streamed)
    theirs = their_outcome(data)
    if mapped is not None:
        check_accepted(mapped, described, theirs)
    elif theirs is not None:
        check_that_they_write_no_such(theirs)


def outcome(call: Callable[[], ParametersRecord], most: int) -> ParametersRecord | None:
    """What comes of reading; None if it is refused. No more memory is taken than there are bytes."""
    taken = 0

    def counted(nbytes: int) -> Any:
        nonlocal taken
        taken += nbytes
        assert taken <= most, f"{taken} bytes are taken for {most}"
        return blank(nbytes)

    with patch.object(files, "blank", counted), patch.object(reading, "blank", counted):
        try:
            return call()
        except (ValueError, EOFError):
            return None


def fields(record: ParametersRecord | None) -> object:
    return record and [(name, array.dtype, array.shape, array.stype, array.data) for name, array in record.items()]


def their_outcome(data: bytes) -> dict[str, dict[str, Any]] | None:
    try:
        return dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]  # of Rust
    except safetensors.SafetensorError:
        return None


def may_be_called(array: Array, name: str) -> bool:
    """Whether this is a name of the Array's dtype, or none that NumPy knows: other releases may have other names."""
    try:
        return name == array.dtype or np.dtype(name) == array.numpy().dtype
    except (TypeError, ValueError, SyntaxError):
        return True


def touch(array: Array) -> None:
    """Read the whole of an Array."""
    try:
        shown = array.numpy()
    except (TypeError, ValueError):
        return
    shown.tobytes()


def check_that_they_write_no_such(theirs: dict[str, dict[str, Any]]) -> None:
    """The library takes more than we do: keys that come twice, shapes that NumPy has not. We read what it writes."""
    if any(len(found["shape"]) > MAX_AXES or 0 in found["shape"] for found in theirs.values()):
        return
    arrays = {
        name: np.frombuffer(found["data"], dtype).reshape(found["shape"])
        for name, found in theirs.items()
        if (dtype := DTYPES.get(found["dtype"])) is not None and dtype.kind in "biufc"
    }
    record = read(io.BytesIO(their_save(arrays)))
    assert {name: array.tobytes() for name, array in arrays.items()} == {name: array.numpy().tobytes() for name, array in record.items()}


def check_accepted(record: ParametersRecord, described: Any, theirs: dict[str, dict[str, Any]] | None) -> None:
    assert list(described.entries) == list(record)
    for name, array in record.items():
        entry = described.entries[name]
        assert (entry.shape, entry.stype) == (tuple(array.shape), array.stype) and may_be_called(array, entry.dtype)
        touch(array)
    # In one thread, so that an input always does the same.
    with patch.object(checksums, "spread", lambda work, items, name: map(work, items)), suppress(ValueError):
        record.verify(contents=True)  # with checksums of somebody's own
    save(record, AGAIN, described.metadata)
    again = load(AGAIN)
    assert fields(again) == fields(record) and inspect(AGAIN).metadata == described.metadata
    written = io.BytesIO()
    write(record, written, described.metadata)
    assert written.getvalue() == AGAIN.read_bytes()
    assert theirs is not None, "the library refuses it"
    assert theirs.keys() == set(record)
    for name, found in theirs.items():
        assert bytes(found["data"]) == bytes(record[name].segments()[1])
