"""The cases of ``python -m profiling files``, each in a process of its own: one library, one operation.

The model is NumPy arrays of 16 MiB, or tensors on them. Each operation is done a few times, of which the fastest counts: the first
time, a virtual machine may have to fetch the memory from its host.
"""

from __future__ import annotations

import importlib
import io
import json
import mmap
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import flatrecord
import flatrecord.safetensors as ours
from flatrecord._core.buffer import empty_cache
from flatrecord._core.parts import blank

from .process import ROOT, Child, forget_peak, status

ENTRY = 16 << 20  # bytes
REPEATS = 2
PIECE = 1 << 20


def model(entries: int) -> dict[str, np.ndarray]:
    """Arrays that are resident, each full of its number."""
    return {f"layer{i:05}.weight": np.full((2048, ENTRY // 8192), i, np.float32) for i in range(entries)}


def is_model(values: Iterable[Any], entries: int) -> bool:
    """Whether the ends of each array are what `model` made; looks at no more, so that what is mapped stays on disk.

    In any order, as safetensors does not keep it when it loads from bytes.
    """
    found = sorted((float(array[0, 0]), float(array[-1, -1])) for array in values)
    return found == [(i, i) for i in range(entries)]


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


# ------------------------------------------------------------------------------------------ to a file


def bare_write(arrays: dict[str, np.ndarray], path: str) -> None:
    with open(path, "wb", buffering=0) as file:
        for array in arrays.values():
            left = array.reshape(-1).view(np.uint8).data
            while len(left):
                left = left[file.write(left) :]


def save_pickle(arrays: dict[str, np.ndarray], path: str) -> None:
    with open(path, "wb") as file:
        pickle.dump(arrays, file, 5)


def save_torch(arrays: dict[str, np.ndarray], path: str) -> None:
    import torch

    torch.save(tensors(arrays), path)


SAVE: dict[str, Callable[[dict[str, np.ndarray], str], object]] = {
    "the machine": bare_write,
    "flatrecord": lambda arrays, path: flatrecord.ParametersRecord(arrays, True, copy=False).save(path),
    "flatrecord, keep_input=False": lambda arrays, path: flatrecord.ParametersRecord(arrays).save(path, keep_input=False),
    "safetensors, NumPy": lambda arrays, path: importlib.import_module("safetensors.numpy").save_file(arrays, path),
    "safetensors, torch": lambda arrays, path: importlib.import_module("safetensors.torch").save_file(tensors(arrays), path),
    "torch.save": save_torch,
    "numpy.savez": lambda arrays, path: np.savez(open(path, "wb"), **arrays),
    "pickle 5": save_pickle,
    "joblib": lambda arrays, path: importlib.import_module("joblib").dump(arrays, path),
}


def save_case(library: str, entries: int, path: str) -> dict[str, Any]:
    """Write the model to a new file, sync it and give it its name, as ours does."""
    save, seconds, ends = SAVE[library], [], []
    save(model(1), path)  # what is loaded once is not the model's
    empty_cache()  # of what was only to be loaded
    interpreter = status("VmRSS")
    forget_peak()
    for _ in range(REPEATS):
        arrays = model(entries)
        began = time.perf_counter()
        if library.startswith("flatrecord"):
            save(arrays, path)
        else:
            save(arrays, path + ".new")
            with open(path + ".new", "rb") as file:
                os.fsync(file.fileno())
            os.rename(path + ".new", path)
        seconds.append(time.perf_counter() - began)
        ends.append(status("VmRSS") - interpreter)
        del arrays
    return dict(seconds=min(seconds), peak=status("VmHWM") - interpreter, end=min(ends), equal=os.path.getsize(path) >= entries * ENTRY)


# ---------------------------------------------------------------------------------------- from a file


def bare_read(path: str) -> list[np.ndarray]:
    """Every payload into huge pages of its own, from a file without a header."""
    arrays = []
    with open(path, "rb", buffering=0) as file:
        for _ in range(os.path.getsize(path) // ENTRY):
            block = blank(ENTRY)
            left = memoryview(block)
            while len(left):
                left = left[file.readinto(left) :]
            arrays.append(np.frombuffer(block, np.float32).reshape(2048, -1))
    return arrays


def bare_mapping(path: str) -> list[np.ndarray]:
    with open(path, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return list(np.frombuffer(mapping, np.float32).reshape(-1, 2048, ENTRY // 8192))


def load_npz(path: str) -> list[np.ndarray]:
    with np.load(path) as archive:
        return [archive[name] for name in archive]


def load_pickle(path: str) -> Iterable[np.ndarray]:
    with open(path, "rb") as file:
        return pickle.load(file).values()


def load_torch(path: str, **options: Any) -> Iterable[Any]:
    import torch

    return torch.load(path, weights_only=True, **options).values()


LOAD: dict[str, tuple[str, Callable[[str], Iterable[Any]]]] = {  # and what wrote the file
    "the machine": ("the machine", bare_read),
    "flatrecord": ("flatrecord", lambda path: ours.load(path, mmap=False).to_numpy_ndarrays()),
    "safetensors, NumPy": (
        "safetensors, NumPy", lambda path: importlib.import_module("safetensors.numpy").load_file(path).values()
    ),
    "torch.load": ("torch.save", load_torch),
    "numpy.load": ("numpy.savez", load_npz),
    "pickle 5": ("pickle 5", load_pickle),
    "joblib": ("joblib", lambda path: importlib.import_module("joblib").load(path).values()),
}  # fmt: skip
MAPPED: dict[str, tuple[str, Callable[[str], Iterable[Any]]]] = {
    "the machine": ("the machine", bare_mapping),
    "flatrecord": ("flatrecord", lambda path: ours.load(path).to_numpy_ndarrays()),
    "safetensors, torch": (
        "safetensors, torch", lambda path: importlib.import_module("safetensors.torch").load_file(path).values()
    ),
    "torch.load": ("torch.save", lambda path: load_torch(path, mmap=True)),
    "joblib": ("joblib", lambda path: importlib.import_module("joblib").load(path, mmap_mode="r").values()),
}  # fmt: skip


def load_case(kind: str, library: str, entries: int, path: str) -> dict[str, Any]:
    """Get the model from a file, which this process has not touched before."""
    writer, load = (LOAD if kind == "load" else MAPPED)[library]
    SAVE[writer](model(1), path + ".1")
    list(load(path + ".1"))  # what is loaded once is not the model's
    empty_cache()  # of what was only to be loaded
    interpreter = status("VmRSS")
    seconds, peaks, equal = [], [], True
    for _ in range(REPEATS):
        forget_peak()
        began = time.perf_counter()
        values = load(path)
        seconds.append(time.perf_counter() - began)
        peaks.append(status("VmHWM") - interpreter)
        equal = equal and is_model(values, entries)
        del values
    return dict(seconds=min(seconds), peak=max(peaks), equal=equal)


# ------------------------------------------------------------------------------- from process to process


def send_bare(arrays: dict[str, np.ndarray], peer: socket.socket) -> None:
    for array in arrays.values():
        left = array.reshape(-1).view(np.uint8).data
        while len(left):
            left = left[peer.sendmsg([left[:PIECE]]) :]


def receive_bare(peer: socket.socket, entries: int) -> list[np.ndarray]:
    arrays = []
    for _ in range(entries):
        block = blank(ENTRY)
        left = memoryview(block)
        while len(left):
            left = left[peer.recv_into(left[:PIECE]) :]
        arrays.append(np.frombuffer(block, np.float32).reshape(2048, -1))
    return arrays


def send_pickle(arrays: dict[str, np.ndarray], peer: socket.socket) -> None:
    with peer.makefile("wb") as file:
        pickle.dump(arrays, file, 5)


def receive_pickle(peer: socket.socket, entries: int) -> Iterable[np.ndarray]:
    with peer.makefile("rb") as file:
        return pickle.load(file).values()


def as_bytes(dump: Callable[[dict[str, np.ndarray], Any], object]) -> Callable[[dict[str, np.ndarray], socket.socket], None]:
    """Send what a library puts into bytes, because it writes to no stream that cannot be rewound."""

    def send(arrays: dict[str, np.ndarray], peer: socket.socket) -> None:
        file = io.BytesIO()
        dump(arrays, file)
        data = file.getbuffer()
        peer.sendall(len(data).to_bytes(8, "little"))
        peer.sendall(data)

    return send


def from_bytes(load: Callable[[io.BytesIO], Iterable[Any]]) -> Callable[[socket.socket, int], Iterable[Any]]:
    """Receive bytes and let a library read them."""

    def receive(peer: socket.socket, entries: int) -> Iterable[Any]:
        with peer.makefile("rb") as file:
            data = file.read(int.from_bytes(file.read(8), "little"))
        return load(io.BytesIO(data))

    return receive


PIPE: dict[str, tuple[Callable[[dict[str, np.ndarray], socket.socket], object], Callable[[socket.socket, int], Iterable[Any]]]] = {
    "the machine": (send_bare, receive_bare),
    "flatrecord": (
        lambda arrays, peer: flatrecord.ParametersRecord(arrays).write(peer, keep_input=False),
        lambda peer, entries: ours.read(peer).to_numpy_ndarrays(),
    ),
    "safetensors, NumPy": (
        as_bytes(lambda arrays, file: file.write(importlib.import_module("safetensors.numpy").save(arrays))),
        from_bytes(lambda file: importlib.import_module("safetensors.numpy").load(file.getvalue()).values()),
    ),
    "torch.save": (as_bytes(save_torch), from_bytes(load_torch)),  # type: ignore[arg-type]
    "numpy.savez": (as_bytes(lambda arrays, file: np.savez(file, **arrays)), from_bytes(load_npz)),  # type: ignore[arg-type]
    "pickle 5": (send_pickle, receive_pickle),
    "joblib": (
        as_bytes(lambda arrays, file: importlib.import_module("joblib").dump(arrays, file)),
        from_bytes(lambda file: importlib.import_module("joblib").load(file).values()),
    ),
}


def pipe_case(library: str, entries: int) -> dict[str, Any]:
    """Send the model over a socket to a process that is started for it."""
    send, _ = PIPE[library]
    left, right = socket.socketpair()
    command = [sys.executable, "-m", "profiling.files_case", library, str(entries)]
    with left, right, subprocess.Popen(command, cwd=ROOT, stdin=right.fileno(), stdout=subprocess.PIPE, text=True) as receiver:
        send(model(1), left)
        left.recv(1)
        empty_cache()  # of what was only to be loaded
        interpreter = status("VmRSS")
        forget_peak()
        seconds, ends = [], []
        for _ in range(REPEATS):
            arrays = model(entries)
            began = time.perf_counter()
            send(arrays, left)
            left.recv(1)
            seconds.append(time.perf_counter() - began)
            ends.append(status("VmRSS") - interpreter)
            del arrays
        found = json.loads(receiver.stdout.read())
    return dict(seconds=min(seconds), peak=status("VmHWM") - interpreter, end=min(ends), receiver=found["peak"], equal=found["equal"])


def receive_case(library: str, entries: int) -> None:
    """The other process of `pipe_case`; its standard input is the socket."""
    _, receive = PIPE[library]
    with socket.socket(fileno=os.dup(0)) as peer:
        equal = is_model(receive(peer, 1), 1)
        empty_cache()  # of what was only to be loaded
        interpreter = status("VmRSS")
        forget_peak()
        peer.send(b"x")
        for _ in range(REPEATS):
            values = receive(peer, entries)
            peer.send(b"x")
            equal = equal and is_model(values, entries)
            del values
    print(json.dumps(dict(peak=status("VmHWM") - interpreter, equal=equal)))


def files_case(child: Child, operation: str, library: str, entries: str, path: str) -> None:
    """One operation with one library; a path without the files that are made there."""
    if operation == "save":
        found = save_case(library, int(entries), path)
    elif operation == "pipe":
        found = pipe_case(library, int(entries))
    else:
        found = load_case(operation, library, int(entries), path)
    child.result(nbytes=int(entries) * ENTRY, **found)


if __name__ == "__main__":
    receive_case(sys.argv[1], int(sys.argv[2]))
