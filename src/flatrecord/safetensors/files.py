"""Files: one that takes another's place all at once, and one that is read or mapped."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from .._core.array import Array, _rebuild
from .._core.buffer import Buffer
from .._core.errors import add_name
from .._core.parts import array_of_block, blank, seal, share
from .._core.workers import cores
from ..threads import spread
from .layout import PREFIX, Layout, Slot, dtype_of, header_length, parsed
from .vectored import MOST, advance, bytes_at, read_at, reads_anywhere

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PIECE = 16 << 20  # bytes that are read in one call
THREADS = 4  # more do not make memory faster
COMMITMENT_LIMIT, USER_MAPPED_FILE = 1455, 1224  # of Windows, which Python knows no errno for


class Replacement:
    """A new file that takes the place of `path` once it is complete, or never.

    Until `commit`, it has no name where the file system knows such files (``O_TMPFILE``), so that
    nothing is left even if the process is killed. The name that it has else, and for a moment within
    `commit`, is ``.flatrecord-*.tmp``, in the same folder.

    Where folders cannot be opened, which is on Windows, files that are open can be neither renamed nor removed. There the file is
    closed before it gets its name, and `reopened` if it does not.

    Attributes
    ----------
    descriptor : int
        Open for writing and reading; closed by `commit` where folders cannot be opened.
    lives_on : bool
        Whether what is open or mapped stays when it has no name any more.
    stays : bool
        Whether a file that was not committed stays after the ``with``, until `discard`.
    """

    descriptor = _folder = -1
    stays = False
    _temporary: str | None = None

    def __init__(self, path: str) -> None:
        self._path = path = os.path.realpath(path)  # a symbolic link stays one
        folder, self._name = os.path.split(path)
        found = None
        with suppress(FileNotFoundError):
            found = os.stat(path)
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"{path!r} is not a regular file: open it and use write()")
        self.lives_on = hasattr(os, "O_DIRECTORY") and os.open in os.supports_dir_fd
        try:
            if self.lives_on:
                self._folder = os.open(folder, os.O_RDONLY | _flags("O_DIRECTORY", "O_CLOEXEC"))
            self.descriptor = self._made(folder)
            # Without owners, a mode says only whether a file may be written to, and one that may not be is not replaced there.
            if found is not None and hasattr(os, "fchown"):
                with suppress(PermissionError):  # only root may give files away
                    os.fchown(self.descriptor, found.st_uid, found.st_gid)
                os.fchmod(self.descriptor, stat.S_IMODE(found.st_mode))
        except BaseException:
            self.discard()
            raise

    def _made(self, folder: str) -> int:
        flags = os.O_RDWR | _flags("O_CLOEXEC", "O_BINARY")
        if self.lives_on and hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
            try:
                return os.open(folder, flags | os.O_TMPFILE, 0o666)
            except OSError as error:
                # What file systems and kernels that have no such files say.
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
                    raise
        self._temporary = _temporary_name() if self.lives_on else os.path.join(folder, _temporary_name())
        return os.open(self._temporary, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self._at)

    @property
    def _at(self) -> int | None:
        """Where `_temporary` is; None if it says that itself."""
        return self._folder if self.lives_on else None

    def commit(self) -> None:
        """Put the file in its place, so that after a power failure too either the old or the new one is whole.

        Raises
        ------
        OSError
            If that fails. Where folders cannot be opened, as a PermissionError that says so if the old file is open or mapped.
        """
        _sync(self.descriptor)
        if not self.lives_on:
            self._move_closed()
            return
        if self._temporary is None:
            self._temporary = _temporary_name()
            source = f"/proc/self/fd/{self.descriptor}"
            # Told of a folder, os.link makes the system call that follows the link in /proc.
            os.link(source, self._temporary, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=True)
        os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._temporary = None
        try:
            os.fsync(self._folder)
        except OSError as error:
            if error.errno != errno.EINVAL:  # of file systems that cannot sync a folder
                raise

    def _move_closed(self) -> None:
        assert self._temporary is not None
        _close(self, "descriptor")
        try:
            os.replace(self._temporary, self._path)
        except OSError as error:
            refused = isinstance(error, PermissionError) or getattr(error, "winerror", None) == USER_MAPPED_FILE
            if not (refused and hasattr(os, "O_BINARY")):  # which only Windows has
                raise
            raise PermissionError(
                errno.EACCES,
                "cannot be replaced. A file that is read-only, open, or mapped as by load(), cannot be on this system: "
                "let go of the arrays that show it, load with mmap=False, or save under another name",
                self._path,
            ) from error
        self._temporary = None

    def reopened(self) -> int:
        """A descriptor of the file for reading, which the caller closes; whether it got its name or not."""
        flags = os.O_RDONLY | _flags("O_CLOEXEC", "O_BINARY")
        if self._temporary is not None:
            with suppress(FileNotFoundError):  # an interrupt came when it had its name
                return os.open(self._temporary, flags, dir_fd=self._at)
        return os.open(self._path, flags)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.stays:
            self.discard()

    def __del__(self) -> None:
        # Where an interrupt comes, or memory ends, between its making and the `with`.
        self.discard()

    def discard(self) -> None:
        """Close everything, and leave no file that was not committed."""
        _close(self, "descriptor")
        if self._temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._at)
            self._temporary = None
        _close(self, "_folder")


def _flags(*names: str) -> int:
    """Flags for `os.open`, of which some systems lack some."""
    return sum(getattr(os, name, 0) for name in names)


def _sync(descriptor: int) -> None:
    """Have what was written on the disk."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # macOS, whose fsync leaves it in the disk's own memory
        with suppress(OSError):  # of file systems that have no such thing
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def _close(owner: object, name: str) -> None:
    """Close a descriptor that `owner` has as an attribute, if it is open."""
    descriptor = getattr(owner, name)
    if descriptor >= 0:
        setattr(owner, name, -1)  # before it is closed: by then another thread may have a file of that number
        os.close(descriptor)


def _temporary_name() -> str:
    return f".flatrecord-{secrets.token_hex(8)}.tmp"


class FileState(NamedTuple):
    """What tells that a file is still the one that was read."""

    path: str
    device: int
    inode: int
    size: int  # bytes
    modified: int  # nanoseconds since 1970

    @classmethod
    def of(cls, path: str, found: os.stat_result) -> Self:
        """What `os.stat` has found out about the file at `path`."""
        return cls(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Source:
    """A safetensors file that is open for reading.

    Raises
    ------
    OSError
        If it cannot be opened.
    ValueError
        If it is not a whole and consistent safetensors file; the message names it.
    """

    descriptor = -1

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | _flags("O_CLOEXEC", "O_BINARY", "O_NONBLOCK"))  # a pipe would be waited for
        except PermissionError:
            if os.path.isdir(path):  # which Windows does not open
                raise _folder_error(path) from None
            raise
        try:
            found = os.fstat(self.descriptor)
            if stat.S_ISDIR(found.st_mode):
                raise _folder_error(path)
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"{path!r} is not a regular file: open it and use read()")
            self.state = FileState.of(path, found)
            with naming(path):
                length = header_length(self._read(0, PREFIX), found.st_size)
                self.layout = parsed(self._read(PREFIX, length), found.st_size - PREFIX - length)
        except BaseException:
            _close(self, "descriptor")
            raise

    def _read(self, offset: int, nbytes: int) -> bytes:
        """So many bytes, or those up to the end of the file: one call may give fewer."""
        found = bytes_at(self.descriptor, nbytes, offset)
        while len(found) < nbytes and (more := bytes_at(self.descriptor, nbytes - len(found), offset + len(found))):
            found += more
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _close(self, "descriptor")

    def __del__(self) -> None:
        # Where an interrupt comes, or memory ends, between its making and the `with`.
        _close(self, "descriptor")

    def mapped(self, names: Iterable[str]) -> dict[str, Array]:
        """Arrays that show the file."""
        with naming(self.path):
            return mapped(self.descriptor, self.layout, names)

    def read(self, names: Iterable[str]) -> dict[str, Array]:
        """Arrays in memory of their own, which is read by several threads at once."""
        with naming(self.path):
            return own(self.descriptor, self.layout, names)


def _folder_error(path: str) -> IsADirectoryError:
    return IsADirectoryError(errno.EISDIR, "a folder: load a file in it, or its model.safetensors.index.json", path)


class naming:
    """Let a ValueError that is raised within say of which file it speaks."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if type(error) is ValueError:
            error.args = (f"{self._path}: {error}",)


def own(descriptor: int, layout: Layout, names: Iterable[str]) -> dict[str, Array]:
    """Arrays in memory of their own, with payloads of an open file; several threads read at once."""
    blocks: dict[str, Buffer] = {}
    for name in names:
        slot = layout.slots[name]
        if slot.serialized is None:
            dtype_of(name, slot.code)
        blocks[name] = block_for(name, slot)
    _fill(descriptor, layout, blocks)
    return {name: array_from(name, layout.slots[name], block) for name, block in blocks.items()}


def mapped(descriptor: int, layout: Layout, names: Iterable[str]) -> dict[str, Array]:
    """Arrays that show payloads of an open file, which may have no name any more, and may end after these."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return {}
    view = memoryview(_mapping(descriptor, size)).toreadonly()[layout.begin :]
    return {name: array_from(name, slot, share(view[slot.start : slot.stop])) for name in names for slot in (layout.slots[name],)}


def _mapping(descriptor: int, size: int) -> mmap.mmap:
    # torch has no read-only tensors. Whoever writes to one is to get torch's error, and a page of his own, not SIGSEGV.
    try:
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
    except OSError as error:
        if error.errno != errno.ENOMEM and getattr(error, "winerror", None) != COMMITMENT_LIMIT:
            raise
    # The kernel would have to have as much memory as could be written to, and does not promise it.
    return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)


def block_for(name: str, slot: Slot) -> Buffer:
    """Memory for one payload, to be filled."""
    try:
        return blank(slot.nbytes)
    except MemoryError as error:
        add_name(error, name)
        raise


def array_from(name: str, slot: Slot, block: Buffer) -> Array:
    """The Array of a payload.

    Raises
    ------
    ValueError
        If the two do not go together; the message names the key.
    """
    if slot.serialized is None:
        return array_of_block(block, dtype_of(name, slot.code), slot.shape)
    kept = slot.serialized
    try:
        return _rebuild(Array, kept.dtype, kept.shape, False, kept.stype, kept.preamble, block)
    except (TypeError, ValueError) as error:  # NumPy has both for dtypes that it does not know
        raise ValueError(f"key {name!r}: {error}") from None


def _fill(descriptor: int, layout: Layout, blocks: dict[str, Buffer]) -> None:
    """Read payloads into blocks, and seal these."""
    read, jobs = partial(_read_at, descriptor), _jobs(layout, blocks)
    several = cores() > 1 and reads_anywhere() and sum(map(len, blocks.values())) > PIECE
    # Closed in any case: no thread is to read from a descriptor that is no longer ours.
    with closing(spread(read, jobs, "flatrecord-read", THREADS) if several else (read(job) for job in jobs)) as done:
        for _ in done:
            pass
    for block in blocks.values():
        seal(block)


def _jobs(layout: Layout, blocks: dict[str, Buffer]) -> Iterator[tuple[int, list[memoryview]]]:
    """What is read in one call each: an offset in the file, and the memory for the bytes from there on."""
    offset = end = room = 0
    views: list[memoryview] = []
    for name in sorted(blocks, key=lambda name: layout.slots[name].start):
        start = layout.begin + layout.slots[name].start
        view = memoryview(blocks[name])
        at = 0
        while at < len(view):
            if start + at != end or room == 0 or len(views) == MOST:
                if views:
                    yield offset, views
                offset, views, room = start + at, [], PIECE
            views.append(view[at : at + room])
            at += len(views[-1])
            room -= len(views[-1])
            end = start + at
    if views:
        yield offset, views


def _read_at(descriptor: int, job: tuple[int, list[memoryview]]) -> None:
    offset, views = job
    while views:
        count = read_at(descriptor, views, offset)
        if count == 0:
            raise ValueError(f"the file ends at byte {offset}: it was cut while it was read")
        offset += count
        advance(views, count)
