"""Safetensors files made by hand, byte for byte, and what is read of ours by hand."""

import json
import os
import stat
from pathlib import Path


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
