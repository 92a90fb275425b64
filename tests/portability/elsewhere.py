"""Our modules on a system that has what Windows has, and is as strict about files that are open: the fixture ``elsewhere``.

As a pytest plugin (``-p portability.elsewhere``) it is there for every test. What is changed is what our Python sees of the system, in this
process: not what the core was compiled with, nor what other processes see.
"""

import errno
import mmap
import os
import select
import socket
import stat
import sys
from types import ModuleType

import pytest

import flatrecord.convert
import flatrecord.flower.limits
import flatrecord.safetensors.files

LACKING = {
    os: {
        *("O_TMPFILE", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "fchown", "fchmod", "pread", "preadv", "writev", "sysconf"),
        *("sched_getaffinity", "register_at_fork"),
    },
    select: {"poll", "epoll", "POLLIN", "POLLOUT"},
    mmap: {"MAP_PRIVATE", "MAP_SHARED", "PROT_READ", "PROT_WRITE"},
}
BINARY = 1 << 40  # os.O_BINARY here. Without it, Windows would write two bytes for each 10 in a file


def in_use(path: str) -> bool:
    """Whether this process has a file open or mapped."""
    path = os.path.realpath(path)
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}") == path:
                return True
        except FileNotFoundError:
            pass  # that of the list itself
    with open("/proc/self/maps") as file:
        return any(line.endswith(f" {path}\n") for line in file)


def refuse(path: str) -> None:
    raise PermissionError(errno.EACCES, "refused", path)


class Lacking:
    """A module without some of its names."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name):
        if name in LACKING[self._module]:
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r}")
        return getattr(self._module, name)


class System(Lacking):
    """What the module os is elsewhere."""

    O_BINARY = BINARY

    @staticmethod
    def open(path, flags, mode=0o777, *, dir_fd=None):
        assert dir_fd is None
        if os.path.isdir(path):
            refuse(path)
        assert flags & BINARY or path == os.devnull
        # Not as pipes of other systems, where to open one waits.
        return os.open(path, flags & ~BINARY | os.O_NONBLOCK, mode)

    @staticmethod
    def rename(source, target, *, src_dir_fd=None, dst_dir_fd=None):
        if os.path.exists(target):
            raise FileExistsError(errno.EEXIST, "there is such a file already", target)
        System.replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    @staticmethod
    def replace(source, target, *, src_dir_fd=None, dst_dir_fd=None):
        assert src_dir_fd is None and dst_dir_fd is None
        for path in (source, target):
            if os.path.exists(path) and (in_use(path) or not os.stat(path).st_mode & stat.S_IWUSR):
                refuse(path)
        os.replace(source, target)

    @staticmethod
    def unlink(path, *, dir_fd=None):
        assert dir_fd is None
        if in_use(path):
            refuse(path)
        os.unlink(path)


def take_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our modules see such a system until the end of the test."""

    def no_sendmsg(stream):
        raise AttributeError("sendmsg")

    monkeypatch.setattr(socket.socket, "sendmsg", property(no_sendmsg), raising=False)
    monkeypatch.setattr(flatrecord.safetensors.files, "fcntl", None)
    changed = {os: System(os), select: Lacking(select), mmap: Lacking(mmap)}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "flatrecord":
            for original, other in changed.items():
                if getattr(module, original.__name__, None) is original:
                    monkeypatch.setattr(module, original.__name__, other)


@pytest.fixture
def elsewhere(monkeypatch):
    take_away(monkeypatch)


@pytest.fixture(autouse=True)
def _everywhere(request):
    # The module is a plugin only where it was asked for by -p; test modules import the fixture above.
    request.getfixturevalue("elsewhere")
