"""Pipes and sockets whose other end is closed, and signals that interrupt system calls all the time."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from faults.injection import environment

from flatrecord import Array, ParametersRecord
from flatrecord.safetensors import read, write

MIB = 1 << 20
ENTRIES = 6


def large() -> ParametersRecord:
    """A record that no buffer of a pipe or a socket holds."""
    return ParametersRecord({f"layer{i}": np.full(MIB, i, "u1") for i in range(ENTRIES)})


def check(record: ParametersRecord, names: list[str]) -> None:
    assert list(record) == names
    for name, array in record.items():
        assert array.shape == (MIB,) and (array.numpy() == int(name.removeprefix("layer"))).all()


def pair(kind: str):
    """Where to write and where to read from."""
    if kind == "socket":
        return socket.socketpair()
    reading, writing = os.pipe()
    return open(writing, "wb", buffering=0), open(reading, "rb", buffering=0)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("taken", [0, 100, MIB + 5, 3 * MIB])
def test_the_reader_goes_away(taken, keep_input, kind):
    descriptors = len(os.listdir("/proc/self/fd"))
    writing, reading = pair(kind)
    record = large()

    def take() -> None:
        left = taken
        while left:
            left -= len(reading.recv(min(left, 9999)) if kind == "socket" else reading.read(min(left, 9999)))
        reading.close()

    thread = threading.Thread(target=take)
    thread.start()
    with writing, pytest.raises(OSError, match=r"Broken pipe|Connection reset") as raised:
        write(record, writing, keep_input=keep_input)
    thread.join()
    # A reset is what a socket says whose reader has left something unread.
    assert raised.value.errno in (errno.EPIPE, errno.ECONNRESET)
    names = list(large())
    gone = 0 if keep_input else len(names) - len(record)
    check(record, names[gone:])
    assert gone <= taken // MIB + 2  # what waits in the buffers was sent
    assert bool(gone) == any(f"{gone} of {ENTRIES} entries had been sent" in note for note in getattr(raised.value, "__notes__", ()))
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert write(record, Null()) > 0  # what is in the record again can be sent


class Null:
    def write(self, data: memoryview) -> int:
        return len(data)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("sent", [0, 5, 100, MIB, 5 * MIB])
def test_the_writer_goes_away(sent, kind):
    descriptors = len(os.listdir("/proc/self/fd"))
    writing, reading = pair(kind)
    pieces: list[bytes] = []

    class Keeping(Null):
        def write(self, data: memoryview) -> int:
            pieces.append(bytes(data))
            return len(data)

    write(large(), Keeping())

    def send() -> None:
        with writing:
            left = memoryview(b"".join(pieces)[:sent])
            while left:
                left = left[writing.send(left) if kind == "socket" else writing.write(left) :]

    thread = threading.Thread(target=send)
    thread.start()
    with reading, pytest.raises(EOFError, match="the stream ended"):
        read(reading)
    thread.join()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_write_to_a_closed_pipe():
    writing, reading = pair("pipe")
    reading.close()
    array = Array(np.arange(MIB))
    with writing, pytest.raises(BrokenPipeError):
        array.write_to(writing)
    assert (array.numpy() == np.arange(MIB)).all()


STORM = """
import os, signal, socket, sys, threading
import numpy as np
from flatrecord import ParametersRecord
from flatrecord.safetensors import load, read, save, write

heard = 0
def hear(number, frame):
    global heard
    heard += 1

path, kind = sys.argv[1:]
entries = {f"layer{i}": np.full(3 << 20, i, "u1") for i in range(4)} | {"turned": np.zeros((1000, 900)).T}
record, expected = ParametersRecord(entries, keep_input=True), ParametersRecord(entries, keep_input=True)
signal.signal(signal.SIGALRM, hear)
signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
rounds = 0
while heard < 100 or rounds < 3:
    rounds += 1
    if kind == "file":
        save(record, path, keep_input=rounds % 2 == 0, checksum=rounds % 3 == 0)
        record = load(path, mmap=False)
    else:
        if kind == "socket":
            writing, reading = socket.socketpair()
        else:
            reading, writing = [open(end, mode, buffering=0) for end, mode in zip(os.pipe(), ("rb", "wb"))]
        thread = threading.Thread(target=write, args=(expected, writing))
        thread.start()
        with reading:
            record = read(reading)
        thread.join()
        writing.close()
    assert list(record) == list(expected) and all(np.array_equal(record[name].numpy(), expected[name].numpy()) for name in record)
signal.setitimer(signal.ITIMER_REAL, 0)
print(heard)
"""


@pytest.mark.parametrize("kind", ["file", "pipe", "socket"])
def test_a_storm_of_signals(kind, tmp_path):
    """One each millisecond, so that system calls that wait return with EINTR."""
    command = [sys.executable, "-c", STORM, str(tmp_path / "x.safetensors"), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(None))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 100


def test_sigpipe_ends_nothing():
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN  # Python's own setting, on which the above relies
