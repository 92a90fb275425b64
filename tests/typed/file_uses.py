"""What type checkers make of files and streams, read as `core_uses.py`."""

import io
import socket
import sys
from http.client import HTTPResponse
from pathlib import Path
from typing import assert_type

import numpy as np
from torch import Tensor

from flatrecord import Array, ArrayRecord, ParametersRecord, flower, safetensors


def files(state_dict: dict[str, Tensor], record: ParametersRecord, path: Path) -> None:
    assert_type(safetensors.save(record, path), int)
    assert_type(safetensors.save(state_dict, "x", {"format": "pt"}, checksum=True, progress=print), int)
    assert_type(safetensors.save({"a": np.zeros(3), "b": Array(np.zeros(3)), "c": state_dict["c"]}, path), int)
    safetensors.save([np.zeros(3)], path)  # error: arg-type
    safetensors.save({"a": 3}, path)  # error: dict-item
    safetensors.save(record, 3)  # error: arg-type
    safetensors.save(record, path, {"epoch": 3})  # error: dict-item
    assert_type(safetensors.load(path), ParametersRecord)
    assert_type(safetensors.load(path, mmap=False, keys=["a"]), ParametersRecord)
    assert_type(safetensors.load(path, cls=ArrayRecord), ArrayRecord)
    assert_type(safetensors.load(path, cls=flower.ArrayRecord), flower.ArrayRecord)
    safetensors.load(path, cls=dict)  # error: type-var
    assert_type(ParametersRecord.load(path), ParametersRecord)
    assert_type(ArrayRecord.load(path, keys=("a", "b")), ArrayRecord)
    assert_type(safetensors.inspect(path), safetensors.Contents)
    assert_type(safetensors.inspect(path).entries["a"].offset, int | None)
    record.verify(contents=True)


def streams(record: ParametersRecord, peer: socket.socket, body: HTTPResponse) -> None:
    assert_type(safetensors.write(record, peer), int)
    assert_type(record.write(io.BytesIO(), keep_input=False), int)
    record.write(sys.stdout.buffer)
    record.write(sys.stdout)  # error: arg-type
    record.write("path")  # error: arg-type
    with open("x", "wb") as file:
        record.write(file)
    assert_type(safetensors.read(peer), ParametersRecord)
    assert_type(safetensors.read(body, cls=ArrayRecord), ArrayRecord)
    assert_type(ArrayRecord.read(io.BytesIO(), limit=1 << 30), ArrayRecord)
    with open("x", "rb") as file:
        assert_type(ParametersRecord.read(file), ParametersRecord)
    ParametersRecord.read(sys.stdin)  # error: arg-type
    ParametersRecord.read(b"abc")  # error: arg-type
