"""Records on pipes, sockets, HTTP bodies and whatever else has a stream of bytes."""

import gzip
import io
import os
import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from flatrecord import Array, ParametersRecord
from flatrecord.safetensors import load, read, save, write

MIB = 1 << 20


def example() -> ParametersRecord:
    """Large entries, small ones, odd ones and none."""
    record = ParametersRecord(
        {
            "large": np.arange(3 * MIB, dtype="u1"),
            **{f"small{i}": np.full(i, i, "i2") for i in range(700)},
            "brain": np.arange(MIB, dtype="f4"),
            "empty": np.zeros((0, 2)),
            "odd": np.arange(100_001, dtype="u1"),
        }
    )
    record["own"] = Array("x", [1], "y", b"bytes")
    return record


def check(record: ParametersRecord) -> None:
    wanted = example()
    assert list(record) == list(wanted) and record == wanted


@pytest.fixture
def background():
    """Runs functions in threads, and raises what they raised."""
    errors, threads = [], []

    def start(function, *arguments):
        def run():
            try:
                function(*arguments)
            except BaseException as error:
                errors.append(error)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


# ------------------------------------------------------------------------------------ kinds of streams


def test_a_pipe(background):
    source, target = os.pipe()

    def send():
        with open(target, "wb") as stream:
            example().write(stream)
            example().write(stream)

    background(send)
    with open(source, "rb") as stream:
        check(read(stream))  # and no byte more
        check(read(stream))
        with pytest.raises(EOFError, match="ended before a record began"):
            read(stream)


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_that_does_not_block(blocking, buffering, background):
    source, target = os.pipe()
    for end in (source, target):
        os.set_blocking(end, blocking)

    def send():
        with open(target, "wb", buffering) as stream:
            example().write(stream)

    background(send)
    with open(source, "rb", buffering) as stream:
        check(read(stream))


@pytest.mark.parametrize("timeout", [None, 10.0, 0.0])
@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_a_bare_socket(family, timeout, background):
    if family == "unix":
        left, right = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            left = socket.create_connection(server.getsockname())
            right, _ = server.accept()
    with left, right:
        for end in (left, right):
            end.settimeout(timeout)
        background(lambda: (write(example(), left), write(example(), left)))
        check(read(right))
        check(read(right))


def test_a_socket_that_times_out():
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(0.05)
        right.settimeout(0.05)
        record = example()
        with pytest.raises(TimeoutError):
            write(record, left)
        check(record)
        with pytest.raises(TimeoutError):
            read(right)


def test_a_sockets_file(background):
    left, right = socket.socketpair()
    with left, right, left.makefile("wb") as sink, right.makefile("rb") as source:
        background(write, example(), sink)
        check(read(source))


@pytest.mark.parametrize("timeout", [None, 0.0])
def test_tls(timeout, background, tmp_path):
    pem = tmp_path / "pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", pem, "-out", tmp_path / "certificate"], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "certificate", pem)
    client = ssl.create_default_context(cafile=tmp_path / "certificate")
    left, right = socket.socketpair()

    def send():
        with server.wrap_socket(left, server_side=True) as stream:
            stream.settimeout(timeout)
            write(example(), stream)
            stream.settimeout(10)
            stream.recv(1)

    background(send)
    with client.wrap_socket(right, server_hostname="localhost") as stream:
        stream.settimeout(timeout)
        check(read(stream))
        stream.send(b"x")


def test_http_bodies(background):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            record = read(self.rfile)
            self.send_response(200)
            self.end_headers()
            record.write(self.wfile)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        background(server.handle_request)
        connection = HTTPConnection(*server.server_address)
        body = io.BytesIO()
        example().write(body)
        connection.request("POST", "/", body.getvalue())
        with connection.getresponse() as response:
            check(read(response))
        connection.close()


def test_a_file_that_compresses(tmp_path):
    with gzip.open(tmp_path / "x.gz", "wb", 1) as stream:
        example().write(stream)
    with gzip.open(tmp_path / "x.gz", "rb") as stream:
        check(read(stream))


def test_a_file_and_a_stream_have_the_same_bytes(tmp_path):
    save(example(), tmp_path / "x", {"a": "b"})
    stream = io.BytesIO()
    write(example(), stream, {"a": "b"})
    assert stream.getvalue() == (tmp_path / "x").read_bytes()
    with open(tmp_path / "x", "rb", buffering=0) as stream:
        check(read(stream))
    with open(tmp_path / "y", "wb", buffering=0) as stream:
        write(example(), stream)
    check(load(tmp_path / "y"))


# --------------------------------------------------------------------------------- streams that are odd


class Short(io.RawIOBase):
    """Reads and writes a few bytes at a time, and now and then is not ready."""

    def __init__(self, data: bytes = b"", most: int = 7001, ready_every: int = 1) -> None:
        self.data, self.at, self.most, self.calls, self.ready_every = bytearray(data), 0, most, 0, ready_every
        self.ready, self.give = os.pipe()  # always ready to be written to
        os.write(self.give, b"x")

    def readable(self):
        return True

    def writable(self):
        return True

    def close(self):
        if not self.closed:
            os.close(self.ready)
            os.close(self.give)
        super().close()

    def is_ready(self):
        self.calls += 1
        return self.calls % self.ready_every == 0

    def readinto(self, view):
        if not self.is_ready():
            return None
        piece = self.data[self.at : self.at + min(self.most, len(view))]
        view[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)

    def write(self, view):
        if not self.is_ready():
            return None
        self.data += view[: self.most]
        return min(self.most, len(view))


class Duplex(Short):
    """One that says which file descriptor to wait for."""

    reading = False

    def fileno(self):
        return self.ready if self.reading else self.give


@pytest.mark.parametrize("most", [1, 7001, 10**9])
@pytest.mark.parametrize("ready_every", [1, 3])
def test_short_reads_and_writes(most, ready_every):
    record = example() if most > 1 else ParametersRecord({"a": np.arange(300), "b": np.arange(5)})
    with Duplex(most=most, ready_every=ready_every) as stream:
        assert record.write(stream) == len(stream.data)
        stream.reading = True
        assert read(stream) == record


def test_a_stream_that_can_only_read(tmp_path):
    class Reader:
        def __init__(self, data):
            self.stream = io.BytesIO(data)

        def read(self, size):
            return self.stream.read(min(size, 5000))

    save(example(), tmp_path / "x")
    check(read(Reader((tmp_path / "x").read_bytes())))


def test_a_stream_that_is_not_ready_and_cannot_be_waited_for():
    stream = Short(ready_every=10**9)
    record = example()
    with pytest.raises(BlockingIOError, match="not ready to be written to, and has no fileno"):
        record.write(stream, keep_input=False)
    check(record)
    with pytest.raises(BlockingIOError, match="not ready to be read from, and has no fileno"):
        read(stream)
    stream.close()


@pytest.mark.parametrize("count", [0, -3, 10**9])
def test_a_stream_that_lies_about_what_it_wrote(count):
    class Liar:
        def write(self, data):
            return count

    record = example()
    with pytest.raises(OSError, match=r"write|written"):
        record.write(Liar(), keep_input=False)
    check(record)


def test_a_write_that_says_nothing_has_written():
    class Silent:
        def __init__(self):
            self.data = bytearray()

        def write(self, data):
            self.data += data

        def fileno(self):
            raise AssertionError("there is nothing to wait for")

    stream = Silent()
    example().write(stream)
    check(read(io.BytesIO(stream.data)))


def test_what_another_streams_buffer_took_does_not_count():
    source, target = os.pipe()
    os.set_blocking(target, False)
    with open(source, "rb"), open(target, "wb") as buffered:

        class Between:
            def write(self, data):
                return buffered.write(bytes(data) * 2)

        record = example()
        with pytest.raises(BlockingIOError, match="not ready to be written to"):
            record.write(Between())
        check(record)
        with pytest.raises(BlockingIOError):
            buffered.close()


def test_a_stream_cannot_keep_what_it_has_read_into():
    data = io.BytesIO()
    example().write(data)
    data.seek(0)
    kept = []

    class Keeper:
        def readinto(self, view):
            kept.append(view)
            return data.readinto(view)

    check(read(Keeper()))
    for view in kept:
        with pytest.raises(ValueError, match="released"):
            view[:1] = b"!"

    class Exporter:
        def readinto(self, view):
            kept.append(np.frombuffer(view, "u1"))
            return data.readinto(view)

    data.seek(0)
    with pytest.raises(BufferError, match="has kept a view on it"):
        read(Exporter())


@pytest.mark.parametrize("limit", ["5", -1, 2.5])
def test_a_limit_that_is_none(limit):
    stream = io.BytesIO(whole())
    with pytest.raises(TypeError, match="limit must be a number of bytes"):
        read(stream, limit=limit)
    assert stream.tell() == 0


@pytest.mark.parametrize("answer", [-3, 10**9])
def test_a_stream_that_lies_about_what_it_read(answer):
    class Liar:
        def readinto(self, view):
            return answer

    with pytest.raises(OSError, match="said that it read"):
        read(Liar())


@pytest.mark.parametrize("answer, error", [("text", TypeError), (b"x" * 100, OSError)])
def test_a_stream_that_reads_something_else(answer, error):
    class Liar:
        def read(self, size):
            return answer

    with pytest.raises(error):
        read(Liar())


# ---------------------------------------------------------------------------------- streams that break


def whole() -> bytes:
    stream = io.BytesIO()
    ParametersRecord({"first": np.arange(3), "second": np.arange(100_000)}).write(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kept, reason",
    [
        (0, "before a record began"),
        (5, "after 5 of the 8 bytes"),
        (8, "after 0 of the header's"),
        (20, "after 12 of the header's"),
        (-800_000, "after 24 of 800024 bytes of payload, at key 'first'"),
        (-24, "after 800000 of 800024 bytes of payload, at key 'first'"),
        (-1, "at key 'first'"),
    ],
)
def test_a_stream_that_ends_too_soon(kept, reason):
    data = whole()
    if kept == -800_000:
        reason = "at key 'second'"
        data, kept = data[:-800_024] + data[-24:], len(data)
    with pytest.raises(EOFError, match=reason):
        read(io.BytesIO(data[:kept]))


class Breaking:
    """Takes so many bytes and then fails."""

    def __init__(self, nbytes: int, error: BaseException) -> None:
        self.left, self.error = nbytes, error

    def write(self, data) -> int:
        if self.left <= 0:
            raise self.error
        self.left -= len(data)
        return len(data)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "gone"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("keep_input", [True, False])
def test_what_was_not_sent_is_in_the_record_again(keep_input, error):
    record = ParametersRecord({str(i): np.full(2 * MIB, i, "u1") for i in range(4)})
    with pytest.raises(type(error)) as raised:
        write(record, Breaking(5 * MIB, error), keep_input=keep_input)
    if keep_input:
        assert list(record) == list("0123") and not hasattr(raised.value, "__notes__")
    else:
        assert list(record) == list("23")
        assert raised.value.__notes__ == ["2 of 4 entries had been sent and let go, as keep_input=False says"]
    assert all(array.numpy()[-1] == int(name) for name, array in record.items())


def test_sending_empties_the_record():
    record = example()
    stream = io.BytesIO()
    write(record, stream, keep_input=False)
    assert len(record) == 0
    check(read(io.BytesIO(stream.getvalue())))


def test_a_stream_is_flushed():
    with ExitStack() as stack:
        source, target = os.pipe()
        reader = stack.enter_context(open(source, "rb"))
        writer = stack.enter_context(open(target, "wb"))
        ParametersRecord({"x": np.arange(3)}).write(writer)
        assert read(reader)["x"].numpy().tolist() == [0, 1, 2]  # would wait for ever else
