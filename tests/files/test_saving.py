"""A save is all or nothing: the old file or the new one, the record as it was, and no litter."""

import errno
import gc
import os
import resource
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from files.written import in_folder, permissions

from flatrecord import Array, ParametersRecord
from flatrecord._core.entries import pass_out
from flatrecord.safetensors import load, save
from flatrecord.safetensors.files import Replacement

MIB = 1 << 20


def large() -> ParametersRecord:
    """A record whose entries are each more than one batch."""
    return ParametersRecord({f"layer{i}": np.full(20 * MIB, i, "u1") for i in range(3)})


def check_large(record: ParametersRecord) -> None:
    assert list(record) == ["layer0", "layer1", "layer2"]
    for i, array in enumerate(record.values()):
        values = array.numpy()
        assert values.shape == (20 * MIB,) and values.min() == values.max() == i


class Stop(Exception):
    pass


def after(nbytes: int, error: BaseException):
    """A `progress` that raises `error` once so much is written."""
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if done >= nbytes:
            raise error

    return progress


@pytest.fixture
def old(tmp_path):
    """A folder with a file of that name in it already."""
    path = tmp_path / "model.safetensors"
    save({"old": np.arange(3)}, path)
    return path


def check_old(path: Path) -> None:
    assert in_folder(path.parent) == [path.name]
    assert load(path)["old"].numpy().tolist() == [0, 1, 2]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_save_replaces_the_file(named, keep_input, checksum, old, monkeypatch):
    if named:
        monkeypatch.delattr(os, "O_TMPFILE")
    record, written = large(), []
    size = save(record, old, keep_input=keep_input, checksum=checksum, progress=written.append)
    assert in_folder(old.parent) == [old.name] and size == old.stat().st_size
    assert max(written) <= 16 * MIB and sum(written) >= size
    check_large(load(old))
    assert len(record) == (3 if keep_input else 0)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("nbytes", [1, 30 * MIB, 59 * MIB])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=repr)
def test_a_failure_leaves_all_as_it_was(error, nbytes, keep_input, named, old, monkeypatch):
    if named:
        monkeypatch.delattr(os, "O_TMPFILE")
    record = large()
    with pytest.raises(type(error)):
        save(record, old, keep_input=keep_input, progress=after(nbytes, error))
    check_old(old)
    check_large(record)
    # What is in the record again can be saved after all.
    save(record, old, keep_input=False)
    check_large(load(old))


@pytest.mark.parametrize("call", ["fsync", pytest.param("link", marks=pytest.mark.posix), "replace"])
@pytest.mark.parametrize("keep_input", [True, False])
def test_a_failure_at_the_end_leaves_all_as_it_was(call, keep_input, old, monkeypatch):
    def fails(*arguments, **options):
        raise OSError(errno.EIO, "broken")

    record = large()
    record["own"] = Array("a", [1], "b", b"payload")
    record["wide"] = Array(np.arange(3, dtype="c16"))
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails)
        with pytest.raises(OSError, match="broken"):
            save(record, old, keep_input=keep_input)
    check_old(old)
    assert record.pop("own") == Array("a", [1], "b", b"payload") and record.pop("wide").numpy().tolist() == [0, 1, 2]
    check_large(record)


@pytest.mark.posix
def test_a_failure_after_the_last_step_leaves_the_new_file_and_the_record(old, monkeypatch):
    synced = []

    def fails(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:  # the folder
            raise OSError(errno.EIO, "broken")

    record = large()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="broken"):
            save(record, old, keep_input=False)
    check_large(record)
    check_large(load(old))
    assert in_folder(old.parent) == [old.name]


def test_a_process_out_of_descriptors_loses_nothing(old):
    record, held = large(), []

    def progress(count):
        if len(held) == 0 and count > MIB:
            held.append(-1)
            return
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        raise Stop

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limit[1]))
    try:
        with pytest.raises(Stop):
            save(record, old, keep_input=False, progress=progress)
    finally:
        for descriptor in held[1:]:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    check_old(old)
    check_large(record)


def test_a_second_interrupt_loses_nothing():
    record = large()
    before, calls = dict(record), []

    def work(items):
        items["layer1"] = None
        raise Stop

    def restore(items):
        calls.append(len(record))
        if len(calls) < 5:
            raise KeyboardInterrupt
        items["layer1"] = before["layer1"]

    with pytest.raises(Stop):
        pass_out(record, work, restore)
    check_large(record)
    assert calls == [0] * 5


def test_what_cannot_be_restored_is_said_and_the_rest_is_there():
    record = large()

    def work(items):
        items["layer1"] = None
        raise Stop

    def restore(items):
        raise OSError("no mapping")

    with pytest.raises(Stop) as raised:
        pass_out(record, work, restore)
    assert list(record) == ["layer0", "layer2"]
    assert raised.value.__notes__ == ["some entries could not be put back: OSError('no mapping')"]


@pytest.mark.posix
@pytest.mark.parametrize("named", [False, True])
def test_a_mode_that_is_refused_leaves_nothing_behind(named, old, monkeypatch):
    def refuses(*arguments):
        raise PermissionError(errno.EPERM, "refused")

    if named:
        monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.setattr(os, "fchmod", refuses)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PermissionError, match="refused"):
        save(large(), old, keep_input=False)
    assert len(os.listdir("/proc/self/fd")) == before
    check_old(old)


def test_progress_is_of_the_file(tmp_path):
    for checksum in (True, False):
        written = []
        size = save(large(), tmp_path / "x", checksum=checksum, progress=written.append)
        assert sum(written) == size


def test_entries_that_came_meanwhile_stay(tmp_path):
    record = large()

    def progress(count):
        record["new"] = Array(np.zeros(1))
        raise Stop

    with pytest.raises(Stop):
        save(record, tmp_path / "never", keep_input=False, progress=progress)
    assert list(record) == ["layer0", "layer1", "layer2", "new"]


def test_a_disk_that_is_full(old):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    record = large()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (45 * MIB, limit[1]))
        with pytest.raises(OSError, match="File too large") as raised:
            save(record, old, keep_input=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.errno == errno.EFBIG
    check_old(old)
    check_large(record)


KILLED = """
import os, signal, sys
import numpy as np
from flatrecord import ParametersRecord

record = ParametersRecord({f"layer{i}": np.zeros(20 << 20, "u1") for i in range(4)})
written = 0
def progress(count):
    global written
    written += count
    if written > 50 << 20:
        os.kill(os.getpid(), signal.SIGKILL)
record.save(sys.argv[1], keep_input=False, progress=progress)
"""


def test_a_process_that_is_killed_leaves_no_litter(old):
    done = subprocess.run([sys.executable, "-c", KILLED, old], timeout=60)
    assert done.returncode == -signal.SIGKILL
    check_old(old)


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
from flatrecord import ParametersRecord

record = ParametersRecord({f"layer{i}": np.full(64 << 20, i, "u1") for i in range(8)})
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts us in the background ignores it
started = threading.Event()
def interrupt():
    started.wait()
    time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    record.save(sys.argv[1], keep_input=False, checksum=True, progress=lambda count: started.set())
except KeyboardInterrupt:
    assert [int(array.numpy()[-1]) for array in record.values()] == list(range(8))
    print("interrupted")
"""


def test_ctrl_c(old):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, old], capture_output=True, text=True, timeout=60)
    assert done.stdout == "interrupted\n", done.stderr
    check_old(old)


def test_each_entry_is_freed_once_it_is_written(tmp_path):
    class Watched(Array):
        pass

    arrays = [Watched(np.full(20 * MIB, i, "u1")) for i in range(4)]
    record = ParametersRecord()
    record.update({str(i): array for i, array in enumerate(arrays)})
    dead = [0]
    watched = [weakref.ref(array) for array in arrays]
    del arrays
    seen = []

    def progress(count):
        dead.append(sum(reference() is None for reference in watched))
        seen.append(len(record))

    gc.disable()
    try:
        save(record, tmp_path / "x", keep_input=False, progress=progress)
    finally:
        gc.enable()
    assert set(seen) == {0} and dead[-1] >= 3 and dead == sorted(dead) and set(dead) >= {0, 1, 2, 3}
    assert all(reference() is None for reference in watched)


def test_a_mapped_record_can_be_saved_over_its_own_file(tmp_path):
    path = tmp_path / "x"
    save({"x": np.arange(1000)}, path)
    record = load(path)
    record["y"] = Array(np.ones(3))
    record.save(path, keep_input=False)
    again = load(path)
    assert list(again) == ["x", "y"] and np.array_equal(again["x"].numpy(), np.arange(1000))


@pytest.mark.posix
def test_permissions(tmp_path):
    mask = os.umask(0o027)
    try:
        save({}, tmp_path / "new")
    finally:
        os.umask(mask)
    assert permissions(tmp_path / "new") == 0o640
    (tmp_path / "old").write_bytes(b"")
    os.chmod(tmp_path / "old", 0o604)
    save({}, tmp_path / "old")
    assert permissions(tmp_path / "old") == 0o604
    if os.getuid() == 0:  # nobody else may give files away
        os.chown(tmp_path / "old", 1234, 2345)
        save({}, tmp_path / "old")
        found = (tmp_path / "old").stat()
        assert (found.st_uid, found.st_gid) == (1234, 2345) and permissions(tmp_path / "old") == 0o604


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    save({"x": np.ones(1)}, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and in_folder(tmp_path / "folder") == ["file"]
    assert list(load(tmp_path / "link")) == ["x"]


def test_places_where_nothing_can_be_saved(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="is not a regular file: open it and use write"):
            save({}, path)
    with pytest.raises(ValueError, match="an index is for several"):
        save({}, tmp_path / "x.index.json")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        save({}, tmp_path / "no such folder" / "x")
    with pytest.raises(NotADirectoryError):
        save({}, tmp_path / "pipe" / "x")
    assert in_folder(tmp_path) == ["pipe"]


def test_places_where_nothing_can_be_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError, match=r"index.json"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a regular file: open it and use read"):
        load(tmp_path / "pipe")  # and does not wait for a writer


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save({"x": np.ones(1)}, "x.safetensors")
    record = load("x.safetensors")
    monkeypatch.chdir("/")
    record.verify()


def test_no_descriptor_is_left_open(tmp_path):
    def descriptors():
        gc.collect()  # what earlier tests have left
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(3):
        save({"x": np.ones(1000)}, tmp_path / "x", checksum=True)
        load(tmp_path / "x", mmap=False).verify(contents=True)
        record = load(tmp_path / "x")
        del record
        with pytest.raises(Stop):
            save({"x": np.ones(1000)}, tmp_path / "x", progress=after(1, Stop()))
        (tmp_path / "bad").write_bytes(b"bad")
        with pytest.raises(ValueError, match="not valid safetensors"):
            load(tmp_path / "bad")
    assert descriptors() == before


def test_a_replacement_that_is_not_committed(tmp_path):
    with Replacement(str(tmp_path / "x")) as file:
        os.write(file.descriptor, b"abc")
    assert in_folder(tmp_path) == []
