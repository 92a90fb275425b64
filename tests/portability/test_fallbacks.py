"""Where the system lacks what ours has: the same files and streams, nothing lost when something fails, and errors that say what to do."""

import errno
import fcntl
import mmap
import os
import resource
import select
import socket
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from files.written import in_folder
from portability.elsewhere import elsewhere  # noqa: F401

import flatrecord.testing
from flatrecord import Array, ParametersRecord
from flatrecord._core import workers
from flatrecord.cli import main
from flatrecord.convert import convert
from flatrecord.flower import limits
from flatrecord.profile.resident import observed
from flatrecord.safetensors import files, load, read, save, streams, vectored, write

MIB = 1 << 20


def example() -> ParametersRecord:
    """Large entries, many small ones, odd ones and none."""
    record = ParametersRecord({"large": np.arange(40 * MIB, dtype="u1"), "empty": np.zeros((0, 2)), "odd": np.arange(100_001, dtype="u1")})
    record.update({f"small{i}": Array(np.full(i, i, "i2")) for i in range(700)})
    record["newlines"] = Array(np.full(MIB, 10, "u1"))
    record["own"] = Array("x", [1], "y", b"bytes")
    return record


@pytest.fixture
def old(tmp_path):
    """A folder with a file of that name in it already."""
    path = tmp_path / "model.safetensors"
    save({"old": np.arange(3)}, path)
    return path


def check_old(path) -> None:
    assert in_folder(path.parent) == [path.name]
    assert load(path, mmap=False)["old"].numpy().tolist() == [0, 1, 2]


class Stop(Exception):
    pass


# --------------------------------------------------------------------------------------------- files


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_save_replaces_the_file(checksum, keep_input, old):
    record = example()
    assert save(record, old, keep_input=keep_input, checksum=checksum) == old.stat().st_size
    assert in_folder(old.parent) == [old.name] and len(record) == (len(example()) if keep_input else 0)
    for mapped in (False, True):
        found = load(old, mapped)
        assert found == example()
        found.verify(contents=checksum)


def test_the_file_is_what_it_is_here(tmp_path, request):
    save(example(), tmp_path / "here")
    request.getfixturevalue("elsewhere")
    save(example(), tmp_path / "there")
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("nbytes", [1, 30 * MIB, 41 * MIB])
def test_a_failure_leaves_all_as_it_was(nbytes, error, keep_input, old):
    record, done = example(), []

    def progress(count):
        done.append(count)
        if sum(done) >= nbytes:
            raise error

    with pytest.raises(type(error)):
        save(record, old, keep_input=keep_input, progress=progress)
    check_old(old)
    assert record == example() and list(record) == list(example())
    save(record, old, keep_input=False)
    assert load(old) == example()


@pytest.mark.usefixtures("elsewhere")
def test_a_file_that_is_mapped_is_not_replaced_and_nothing_is_lost(old):
    shown = load(old)
    record = example()
    with pytest.raises(PermissionError, match=r"cannot be replaced. A file that is read-only, open, or mapped .* mmap=False") as raised:
        save(record, old, keep_input=False)
    assert raised.value.filename == str(old) and record == example()
    check_old(old)
    assert shown["old"].numpy().tolist() == [0, 1, 2]
    del shown
    save(record, old, keep_input=False)
    assert load(old) == example()


@pytest.mark.usefixtures("elsewhere")
def test_a_record_can_replace_the_file_that_it_shows_if_it_lets_go_of_it(old):
    load(old).save(old, keep_input=False)
    check_old(old)


@pytest.mark.usefixtures("elsewhere")
def test_windows_own_number_for_a_file_that_is_mapped(old, monkeypatch):
    def fails(*arguments, **options):
        error = OSError(errno.EINVAL, "user-mapped section")
        error.winerror = files.USER_MAPPED_FILE
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fails)
        with pytest.raises(PermissionError, match=r"cannot be replaced"):
            save(example(), old)
    check_old(old)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("call", ["fsync", "replace", "close"])
def test_a_failure_at_the_end_leaves_all_as_it_was(call, old, monkeypatch):
    record, original = example(), getattr(os, call)

    def fails(*arguments, **options):
        if call == "close" and not stat.S_ISREG(os.fstat(arguments[0]).st_mode):
            return original(*arguments)
        monkeypatch.setattr(os, call, original)
        if call == "close":
            original(*arguments)
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match="broken"):
        save(record, old, keep_input=False)
    check_old(old)
    assert record == example()


@pytest.mark.usefixtures("elsewhere")
def test_an_interrupt_once_the_file_has_its_name(old, monkeypatch):
    record, replace = example(), os.replace

    def interrupted(source, target):
        replace(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(record, old, keep_input=False)
    assert record == example() == load(old) and in_folder(old.parent) == [old.name]


@pytest.mark.usefixtures("elsewhere")
def test_places_where_nothing_can_be_saved_or_loaded(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"index.json"):
        load(tmp_path)
    with pytest.raises(ValueError, match="is not a regular file"):
        save({}, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        save({}, tmp_path / "no such folder" / "x")
    assert in_folder(tmp_path) == []


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_a_conversion_replaces_the_file(suffix, tmp_path):
    arrays = {"a": np.arange(5, dtype="f8"), "large": np.full(MIB, 10, "u1")}
    save(arrays, tmp_path / "a.safetensors")
    target = tmp_path / f"b.{suffix}"
    target.write_bytes(b"old")
    convert(str(tmp_path / "a.safetensors"), str(target))
    found = np.load(target) if suffix == "npz" else torch.load(target)
    with found if suffix == "npz" else ExitStack():
        assert {name: np.asarray(found[name]).tolist() for name in found} == {name: array.tolist() for name, array in arrays.items()}
    assert in_folder(tmp_path) == ["a.safetensors", target.name]


@pytest.mark.usefixtures("elsewhere")
def test_short_pieces_are_joined_before_they_are_written(tmp_path, monkeypatch):
    written, write_one = [], os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: written.append(len(view)) or write_one(descriptor, view))
    save({f"small{i}": np.full(1000, i % 256, "u1") for i in range(700)}, tmp_path / "x")
    assert sum(written) == (tmp_path / "x").stat().st_size and len(written) < 10


@pytest.mark.usefixtures("elsewhere")
def test_one_thread_reads_where_the_place_in_the_file_is_shared(tmp_path, monkeypatch):
    arrays = {str(i): np.full(20 * MIB, i, "u1") for i in range(3)}
    save(arrays, tmp_path / "x")
    threads, read_at = set(), vectored.read_at
    monkeypatch.setattr(files, "read_at", lambda *arguments: threads.add(threading.get_ident()) or read_at(*arguments))
    monkeypatch.setattr(files, "cores", lambda: 4)
    found = load(tmp_path / "x", mmap=False, keys=["2", "0"])  # not all, so that there is a place to go to
    assert [found[name].numpy().tobytes() == arrays[name].tobytes() for name in found] == [True, True]
    assert threads == {threading.get_ident()}


@pytest.mark.usefixtures("elsewhere")
def test_a_file_that_is_cut_while_it_is_read(tmp_path, monkeypatch):
    save({"a": np.zeros(20 * MIB, "u1")}, tmp_path / "x")
    read_header = vectored.bytes_at

    def cut(descriptor, nbytes, offset):
        found = read_header(descriptor, nbytes, offset)
        if offset:
            os.truncate(tmp_path / "x", 5 * MIB)
        return found

    monkeypatch.setattr(files, "bytes_at", cut)
    with pytest.raises(ValueError, match=f"the file ends at byte {5 * MIB}: it was cut while it was read"):
        load(tmp_path / "x", mmap=False)


@pytest.mark.parametrize("number", [{"errno": errno.ENOMEM}, {"winerror": files.COMMITMENT_LIMIT}])
def test_where_memory_for_a_writable_mapping_is_not_promised(number, old, monkeypatch):
    tried, mapping = [], mmap.mmap

    def mapped(descriptor, size, access):
        tried.append(access)
        if access == mmap.ACCESS_COPY:
            error = OSError()
            vars(error).update(number)
            error.errno = number.get("errno", errno.EINVAL)
            raise error
        return mapping(descriptor, size, access=access)

    monkeypatch.setattr(mmap, "mmap", mapped)
    record = load(old)
    assert record["old"].numpy().tolist() == [0, 1, 2] and tried == [mmap.ACCESS_COPY, mmap.ACCESS_READ]


def test_another_error_of_a_mapping_is_not_hidden(old, monkeypatch):
    def mapped(descriptor, size, access):
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(mmap, "mmap", mapped)
    with pytest.raises(PermissionError, match="no"):
        load(old)


@pytest.mark.parametrize("works", [True, False])
def test_the_disk_of_a_mac_is_told_to_empty_its_own_memory(works, tmp_path, monkeypatch):
    told, synced, sync = [], [], os.fsync

    def control(descriptor, command):
        told.append((stat.S_ISREG(os.fstat(descriptor).st_mode), command))
        if not works:
            raise OSError(errno.ENOTSUP, "not on this file system")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(stat.S_ISREG(os.fstat(descriptor).st_mode)) or sync(descriptor))
    save({"a": np.ones(3)}, tmp_path / "x")
    assert told == [(True, 51)] and synced == ([False] if works else [True, False])  # then the folder


# ------------------------------------------------------------------------------------------- streams


def exchanged(sending, receiving) -> ParametersRecord:
    """What arrives of the example."""
    failed = []

    def send():
        try:
            write(example(), sending)
        except BaseException as error:
            failed.append(error)
        finally:
            sending.close()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return read(receiving)
    finally:
        receiving.close()
        sender.join(60)
        assert not failed and not sender.is_alive()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("timeout", [None, 10.0, 0.0])
def test_a_socket(timeout):
    left, right = socket.socketpair()
    left.settimeout(timeout)
    right.settimeout(timeout)
    assert exchanged(left, right) == example()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe(blocking):
    source, target = os.pipe()
    for end in (source, target):
        os.set_blocking(end, blocking)
    assert exchanged(open(target, "wb", 0), open(source, "rb", 0)) == example()


@pytest.mark.usefixtures("elsewhere")
def test_a_stream_that_the_system_does_not_wait_for(monkeypatch):
    def refuses(*arguments):
        raise OSError(errno.ENOTSOCK, "not a socket")

    monkeypatch.setattr(select, "select", refuses)
    source, target = os.pipe()
    os.set_blocking(source, False)
    os.set_blocking(target, False)
    record = example()
    with open(source, "rb", 0) as reader, open(target, "wb", 0) as writer:
        with pytest.raises(BlockingIOError, match=r"this system does not wait for one of its kind: .*not a socket"):
            read(reader)
        with pytest.raises(BlockingIOError, match=r"this system does not wait for one of its kind"):
            write(record, writer, keep_input=False)
    assert "large" in record  # what had not been sent


@pytest.mark.usefixtures("elsewhere")
def test_an_interrupt_while_a_stream_is_waited_for():
    # Windows does not wake a wait for it, so that each is short.
    left, right = socket.socketpair()
    right.setblocking(False)
    waits = []

    class Impatient:
        def fileno(self):
            return right.fileno()

        def readinto(self, view):
            return None

    def waited(readers, writers, others, seconds):
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt
        return [], [], []

    with left, right, pytest.MonkeyPatch.context() as patched:
        patched.setattr(select, "select", waited)
        with pytest.raises(KeyboardInterrupt):
            read(Impatient())
    assert waits == [streams.SIGNALS_EVERY] * 3


# ------------------------------------------------------------------------------------ the rest of it


@pytest.mark.parametrize("count, expected", [(3, 3), (None, 1)])
def test_the_number_of_cores(count, expected, monkeypatch, request):
    request.getfixturevalue("elsewhere")
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    monkeypatch.setattr(workers.environment, "THREADS", None)
    assert workers.cores() == expected


@pytest.mark.usefixtures("elsewhere")
def test_the_memory_of_the_machine_is_not_known():
    assert limits.machine_memory() is None


@pytest.mark.parametrize("platform, unit", [("darwin", 1), ("freebsd14", 1024)])
def test_of_the_memory_of_a_process_only_the_peak_is_known(platform, unit, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert before <= observed("VmRSS") <= observed("VmHWM") <= before + MIB * unit


def test_names_that_the_terminal_has_no_characters_for(tmp_path):
    save({"重み\u2713": np.zeros((2, 3))}, tmp_path / "x.safetensors")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "flatrecord", "inspect", str(tmp_path / "x.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert r"\u91cd\u307f\u2713" in done.stdout and r"2\xd73" in done.stdout


@pytest.fixture
def no_memray(monkeypatch):
    """As on Windows, for which there is none."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "memray", None)


@pytest.mark.usefixtures("no_memray")
def test_a_profile_where_there_is_no_memray(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flatrecord.profile.command.find_spec", lambda name: None)
    (tmp_path / "x.py").write_text("")
    assert main(["profile", str(tmp_path / "x.py")]) == 1
    assert "memray, which does not exist for Windows: use WSL, Linux or macOS" in capsys.readouterr().err


@pytest.mark.usefixtures("no_memray")
def test_a_measured_block_where_there_is_no_memray():
    with (
        pytest.raises(ImportError, match="memray, which does not exist for Windows: use WSL, Linux or macOS"),
        flatrecord.testing.measure_peak(),
    ):
        pass
