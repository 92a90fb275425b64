"""Safetensors files made by hand, byte for byte; what is read of ours by hand; and the three ways in which a record is written and read."""

import io
import json
import os
import stat
from pathlib import Path

from flatrecord import ParametersRecord
from flatrecord.safetensors import load, read, save, write


def file_of(header: object, payload: bytes = b"") -> bytes:
    """A file with this header, which may be broken, and these payloads."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def entry(dtype: str = "U8", shape: object = (4,), offsets: object = (0, 4), **more: object) -> dict:
    """What a header says of one entry."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def header_of(path: Path) -> tuple[dict, int]:
    """The header of a file, and where its payloads begin."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), 8 + length


def in_folder(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(os.listdir(folder))


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


WAYS = ["mapped", "read", "stream"]


def back(way: str, source, path, **options) -> ParametersRecord:
    """What comes out of a file, or out of a stream, into which `source` was written."""
    if way == "stream":
        stream = io.BytesIO()
        count = write(source, stream, **options)
        assert count == stream.tell()
        stream.seek(0)
        record = read(stream)
        assert stream.read() == b""
        return record
    count = save(source, path, **options)
    assert count == path.stat().st_size
    return load(path, mmap=way == "mapped")
