"""Records over pipes, sockets and what has `read` or `write`; streams that end, lie, keep what they got, or are closed."""

import io
import os
import socket

import numpy as np
from _measuring import each, refused, report, turn
from files.written import entry, file_of

from flatrecord import Array, ParametersRecord
from flatrecord.safetensors import read, write

TURNS = 1000  # of several system calls each, and some of JSON
# Not text, whose dtypes are new objects each time: up to 1024 of their headers stay in the table of those that were written.
FIELDS = np.zeros(3, [("a", "f4")])


def made():
    mine = Array("mine", (1,), "mine", b"1234")
    return ParametersRecord({"plain": np.arange(6.0), "strided": np.arange(12.0)[::2], "fields": FIELDS.copy(), "mine": mine})


def written():
    stream = io.BytesIO()
    write(made(), stream)
    return stream.getvalue()


DATA = written()


@turn(turns=TURNS)
def by_memory():
    stream = io.BytesIO()
    made().write(stream, {"a": "b"}, keep_input=False)
    stream.seek(0)
    record = ParametersRecord.read(stream)
    with refused(ValueError, "without a checksum"):
        record.verify(contents=True)


@turn(turns=TURNS)
def by_pipe():
    source, target = os.pipe()
    with open(source, "rb", buffering=0) as reader, open(target, "wb", buffering=0) as writer:
        write(made(), writer)
        assert len(read(reader)) == 4


@turn(turns=TURNS)
def by_socket():
    first, second = socket.socketpair()
    with first, second:
        write(made(), first, keep_input=False)
        assert len(read(second)) == 4


class Reading:
    """Has only `read`."""

    def __init__(self, data):
        self.stream = io.BytesIO(data)

    def read(self, size):
        return self.stream.read(size)


class Keeping(io.BytesIO):
    """Keeps what it reads into."""

    def readinto(self, view):
        self.kept = memoryview(view)
        return super().readinto(view)


@turn(turns=TURNS)
def by_others():
    read(Reading(DATA))
    record = read(Keeping(DATA))
    assert len(record) == 4


@each({str(i): DATA[:i] for i in (0, 5, 8, 20, len(DATA) - 90, len(DATA) - 1)}, turns=TURNS)
def that_end(data):
    for kind in (io.BytesIO, Reading):
        with refused(EOFError):
            read(kind(data))


BROKEN = {
    "a list": file_of([]),
    "an unknown dtype": file_of({"ok": entry(), "a": entry("F99", offsets=(4, 8))}, b"abcdefgh"),
    "a hole": file_of({"a": entry(), "b": entry(offsets=(6, 10))}, b"abcdefghij"),
    "a dtype that NumPy has not": file_of({"ok": entry(), "a": entry("F4", [2, 2], (4, 6))}, b"abcdef"),
    "a broken preamble": file_of(
        {"__metadata__": {"flatrecord": '{"serialized": {"a": ["float32", [1], "numpy.ndarray", "junk"]}}'}, "a": entry()}, b"abcd"
    ),
}


@each(BROKEN, turns=TURNS)
def that_lie(data):
    with refused(ValueError):
        read(io.BytesIO(data))


@turn(turns=TURNS)
def with_too_much():
    with refused(ValueError, "limit of 3"):
        read(io.BytesIO(DATA), limit=3)
    with refused(MemoryError):
        read(io.BytesIO(file_of({"a": entry(shape=[1 << 50], offsets=(0, 1 << 50))})))


class Lying(io.RawIOBase):
    """Says that it has written more than there was, or nothing, or raises."""

    def __init__(self, answer):
        self.answer = answer

    def write(self, view):
        if isinstance(self.answer, Exception):
            raise type(self.answer)("enough")
        return self.answer


@each({"more": 1 << 40, "nothing": 0, "not ready": None, "an error": OSError()}, turns=TURNS)
def that_do_not_write(answer):
    record = made()
    for keep_input in (True, False):
        with refused(OSError):
            write(record, Lying(answer), keep_input=keep_input)
    assert len(record) == 4


@turn(turns=TURNS)
def that_are_closed():
    record = made()
    source, target = os.pipe()
    os.close(source)
    with open(target, "wb", buffering=0) as writer, refused(BrokenPipeError):
        write(record, writer, keep_input=False)
    first, second = socket.socketpair()
    second.close()
    with first, refused(OSError):
        write(record, first, keep_input=False)
    with refused(ValueError, "closed"):
        write(record, writer)
    assert len(record) == 4


@turn(turns=TURNS)
def no_streams():
    for wrong in (1, io.StringIO()):
        with refused(TypeError):
            read(wrong)
        with refused(TypeError):
            write(made(), wrong)


report()
