"""Records in safetensors files, mapped or read, and on streams: at no memory beside the record's own.

`save` and `load` are for files, `write` and `read` for anything with a stream of bytes, and `inspect` says what a
file holds. `ParametersRecord` has the first four as methods.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._core.array import Array
from .._core.entries import pass_out
from .._core.errors import add_note
from .._core.record import ParametersRecord
from . import shards
from .checksums import PLACEHOLDER, Hashing
from .files import PIECE as FILE_PIECE, Replacement, Source, mapped, own
from .layout import DTYPES, Layout, check_metadata, encoded
from .origin import Loaded, Origin
from .outgoing import Outgoing, plan, transmit
from .reading import read_layout, read_payloads
from .streams import PIECE as STREAM_PIECE, Send, file_sender, flush, stream_filler, stream_sender

if TYPE_CHECKING:
    from .._core.record import _Value
    from .streams import Source as Stream, Target

__all__ = ["Contents", "Entry", "inspect", "load", "read", "save", "write"]

_Record = TypeVar("_Record", bound=ParametersRecord)


@dataclass(frozen=True)
class Entry:
    """What a file says of one array.

    Attributes
    ----------
    dtype : str
        As in `Array.dtype`; the format's own word where NumPy has no such dtype.
    shape : tuple[int, ...]
        Sizes of the axes, in elements.
    stype : str
        As in `Array.stype`.
    nbytes : int
        Length of the payload, in bytes.
    path : str
        The file it is in.
    offset : int or None
        Where the payload begins there, in bytes; None if the file is not safetensors.
    """

    dtype: str
    shape: tuple[int, ...]
    stype: str
    nbytes: int
    path: str
    offset: int | None


@dataclass(frozen=True)
class Contents:
    """What a file, or a checkpoint of several, says that it holds.

    Attributes
    ----------
    entries : dict[str, Entry]
        By their names, in the header's order.
    metadata : dict[str, str]
        What the header says beside.
    """

    entries: dict[str, Entry]
    metadata: dict[str, str]

    @property
    def nbytes(self) -> int:
        """int: length of all payloads."""
        return sum(entry.nbytes for entry in self.entries.values())


def save(
    record: Mapping[str, _Value],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    keep_input: bool = True,
    *,
    checksum: bool = False,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Write a record to a safetensors file, straight from its memory.

    Parameters
    ----------
    record : ParametersRecord, or a mapping of str to Array, numpy.ndarray or torch.Tensor
        Arrays of any order and strides; what is not row-major and little-endian is copied 4 MiB at a time. Tensors that are
        on another device, conjugate or negative are copied one entry at a time.
    path : str or path-like
        What was there is replaced only when the new file is complete and on the disk, which gets its mode and, where
        that is allowed, its owner. A symbolic link is followed.
    metadata : mapping of str to str, optional
        Goes into the header; Transformers wants ``{"format": "pt"}`` there.
    keep_input : bool
        If False, the record is empty afterwards: each entry is let go once it is written.
    checksum : bool
        Put the SHA-256 of each payload into the header, for `ParametersRecord.verify`. Takes as long as hashing does.
    progress : callable, optional
        Called with the number of bytes of each piece that was written, 16 MiB at most.

    Returns
    -------
    int
        Length of the file, in bytes.

    Raises
    ------
    TypeError, ValueError
        If a key, a value or `metadata` cannot be written, or `keep_input` is False and this is not a record. Nothing
        has been written then.
    OSError
        If the file cannot be written. The old file is as it was, and nothing else is left behind. Where the last
        step fails, which is to sync the folder, the new one may be in its place already, whole.
    PermissionError
        On Windows also if the old file is open or mapped, as by `load`.

    Notes
    -----
    All or nothing: after a failure, Ctrl-C included, every entry is in the record again. Those that had been
    written and freed then show the unfinished file, which has no name any more: in the order of axes and bytes that the
    file has, and no longer tied. On Windows they are read back from it.

    Files know no ties: entries that share memory are each written in full. An Array whose dtype the format
    does not have (complex128, text, dates, structures), or whose `stype` is not NumPy's, is written as raw bytes, which
    `load` and `read` restore; others see these as uint8. Big-endian numbers are written as little-endian.
    """
    target = _path(path)
    if target.endswith(shards.SUFFIX):
        raise ValueError(f"{target}: one file is written, and an index is for several")
    _check_flags(keep_input=keep_input, checksum=checksum)
    kept = check_metadata(metadata)
    way_back = _WayBack()

    def work(items: dict[str, Any]) -> int:
        entries, layout = plan(items.items(), kept)
        if checksum:
            layout.digests = dict.fromkeys(layout.slots, PLACEHOLDER)
        header = encoded(layout)
        with Replacement(target) as file:
            way_back.opens(file, layout)
            write = file_sender(file.descriptor)
            send = write if progress is None else _telling(write, progress)
            if checksum:
                with Hashing(send) as hashing:
                    transmit(header, entries, FILE_PIECE, hashing.send, hashing.seen, _forgetting(items))
                layout.digests = hashing.digests(layout.slots)
                os.lseek(file.descriptor, 0, os.SEEK_SET)
                write([memoryview(encoded(layout))])
            else:
                transmit(header, entries, FILE_PIECE, send, done=_forgetting(items))
            file.commit()
        return layout.begin + layout.nbytes

    try:
        return _done_with(record, keep_input, work, way_back.restore)
    finally:
        way_back.close()


@overload
def load(path: str | os.PathLike[str], mmap: bool = True, *, keys: Iterable[str] | None = None) -> ParametersRecord: ...
@overload
def load(path: str | os.PathLike[str], mmap: bool = True, *, keys: Iterable[str] | None = None, cls: type[_Record]) -> _Record: ...
def load(
    path: str | os.PathLike[str],
    mmap: bool = True,
    *,
    keys: Iterable[str] | None = None,
    cls: type[ParametersRecord] = ParametersRecord,
) -> ParametersRecord:
    """Make a record of a safetensors file, or of a checkpoint in several files.

    Parameters
    ----------
    path : str or path-like
        Of the file, or of a ``model.safetensors.index.json``.
    mmap : bool
        If True, the arrays show the file: this takes milliseconds and no memory, whatever the file's size. If
        False, each payload is read into memory of its own.
    keys : iterable of str, optional
        Which entries, in which order; all by default, in the order of the header or index.
    cls : type
        What to make: `ParametersRecord` or a subclass.

    Returns
    -------
    ParametersRecord

    Raises
    ------
    KeyError
        If a key is not there.
    OSError
        If a file cannot be opened or read.
    ValueError
        If a file is not a whole and consistent safetensors file, or NumPy has no dtype for what it holds. The message
        names the file and the key.
    MemoryError
        If there is no room for an entry.

    Notes
    -----
    What is mapped shows the file as it is. Whoever writes to the file changes the arrays, and whoever cuts it
    short ends the process (SIGBUS) when it reads on: as with every mapped file. `save` does neither, as it
    puts a new file in the old one's place; copying over it with ``cp`` does both. `ParametersRecord.verify` tells.
    A tensor on a mapped array that is written to, against all advice, changes the record, and never the file.

    Each mapped file takes a file descriptor as long as its arrays live.
    """
    _check_flags(mmap=mmap)
    path = os.path.abspath(_path(path))
    wanted = None if keys is None else list(keys)
    arrays: dict[str, Array] = {}
    origin = Origin()

    def take(source: Source, names: list[str]) -> None:
        arrays.update(source.mapped(names) if mmap else source.read(names))
        origin.files.append(source.state)
        origin.entries.update({name: Loaded.of(arrays[name], source.layout.digests.get(name)) for name in names})

    if path.endswith(shards.SUFFIX):
        places = shards.weight_map(path)
        wanted = _chosen(wanted, places, path)
        for source, names in shards.sources(path, {name: places[name] for name in wanted}):
            take(source, names)
    else:
        with Source(path) as source:
            wanted = _chosen(wanted, source.layout.slots, path)
            take(source, wanted)
    return _record_of(cls, {name: arrays[name] for name in wanted}, origin)


def write(record: Mapping[str, _Value], stream: Target, metadata: Mapping[str, str] | None = None, keep_input: bool = True) -> int:
    """Write a record to a stream, in the format of `save`.

    Parameters
    ----------
    record, metadata
        As for `save`.
    stream : socket.socket, or an object with a ``write`` method for bytes
        A pipe, a socket's file, an HTTP body, a BytesIO. Is flushed at the end. A bare socket gets vectored sends
        of 1 MiB. A non-blocking one is waited for, if it has a ``fileno``.
    keep_input : bool
        If False, each entry leaves the record, and is let go once it is sent.

    Returns
    -------
    int
        Number of bytes written.

    Raises
    ------
    TypeError, ValueError
        As `save`; or if `stream` is not a stream of bytes. Nothing has been written then.
    BlockingIOError
        If the stream is not ready, and has no ``fileno`` to wait for it.
    OSError
        Whatever the stream raises.

    Notes
    -----
    After a failure with ``keep_input=False``, what had not been sent is in the record again. What had been sent is
    not: a note of the exception says how much that is.
    """
    _check_flags(keep_input=keep_input)
    send = stream_sender(stream)
    kept = check_metadata(metadata)

    def work(items: dict[str, Any]) -> int:
        entries, layout = plan(items.items(), kept)
        header = encoded(layout)
        nbytes = layout.begin + layout.nbytes
        try:
            transmit(header, entries, STREAM_PIECE, send, done=_forgetting(items))
            flush(stream)
        except BaseException as error:
            gone = sum(entry.value is None for entry in entries)
            if gone and not keep_input:
                add_note(error, f"{gone} of {len(entries)} entries had been sent and let go, as keep_input=False says")
            raise
        return nbytes

    return _done_with(record, keep_input, work, lambda items: None)


@overload
def read(stream: Stream, *, limit: int | None = None) -> ParametersRecord: ...
@overload
def read(stream: Stream, *, limit: int | None = None, cls: type[_Record]) -> _Record: ...
def read(stream: Stream, *, limit: int | None = None, cls: type[ParametersRecord] = ParametersRecord) -> ParametersRecord:
    """Read a record from a stream to which `write` or another safetensors writer has written.

    Parameters
    ----------
    stream : socket.socket, or an object with a ``readinto`` or ``read`` method for bytes
        What comes after the record is left there. A non-blocking one is waited for, if it has a ``fileno``.
    limit : int, optional
        The most bytes of payload that are accepted. Each entry is allocated when its turn comes; without a limit, as large
        as the stream says.
    cls : type
        What to make: `ParametersRecord` or a subclass.

    Returns
    -------
    ParametersRecord

    Raises
    ------
    EOFError
        If the stream ends before the record does.
    TypeError
        If `stream` is not a stream of bytes.
    ValueError
        If what comes is not consistent safetensors, has more than `limit` bytes of payload, or NumPy has no dtype for it.
    MemoryError
        If there is no room for an entry; the message names the key.
    BlockingIOError
        If the stream is not ready, and has no ``fileno`` to wait for it.
    BufferError
        If the stream keeps a view on memory that it has read into.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise TypeError(f"limit must be a number of bytes, got {limit!r:.80}")
    fill = stream_filler(stream)
    layout = read_layout(fill)
    if limit is not None and layout.nbytes > limit:
        raise ValueError(f"the stream announces {layout.nbytes} bytes of payload, more than the limit of {limit}")
    arrays = read_payloads(fill, layout)
    origin = Origin([], {name: Loaded.of(array, layout.digests.get(name)) for name, array in arrays.items()})
    return _record_of(cls, arrays, origin)


def inspect(path: str | os.PathLike[str]) -> Contents:
    """What a safetensors file, or a checkpoint in several, says that it holds.

    Parameters
    ----------
    path : str or path-like
        As for `load`.

    Raises
    ------
    OSError, ValueError
        As `load`. A dtype that NumPy has not is no error here.
    """
    path = os.path.abspath(_path(path))
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}

    def note(source: Source, names: Iterable[str]) -> None:
        entries.update({name: _entry(source, name) for name in names})
        metadata.update(source.layout.metadata)

    if path.endswith(shards.SUFFIX):
        places = shards.weight_map(path)
        for source, names in shards.sources(path, places):
            note(source, names)
        return Contents({name: entries[name] for name in places}, metadata)
    with Source(path) as source:
        note(source, source.layout.slots)
    return Contents(entries, metadata)


def _entry(source: Source, name: str) -> Entry:
    slot = source.layout.slots[name]
    kept = slot.serialized
    if kept is not None:
        dtype, shape, stype = kept.dtype, kept.shape, kept.stype
    else:
        dtype, shape, stype = str(DTYPES[slot.code]) if slot.code in DTYPES else slot.code, slot.shape, "numpy.ndarray"
    return Entry(dtype, shape, stype, slot.nbytes, source.path, source.layout.begin + slot.start)


def _path(path: str | os.PathLike[str]) -> str:
    if isinstance(path, (str, os.PathLike)):
        return os.fsdecode(path)
    raise TypeError(f"path must be str or path-like, got {type(path).__name__}; for streams there are write and read")


def _check_flags(**flags: object) -> None:
    # As strict as it can be: keep_input=False empties the record.
    for name, flag in flags.items():
        if flag is not True and flag is not False:
            raise TypeError(f"{name} must be True or False, got {flag!r:.80}")


def _chosen(keys: list[str] | None, present: Mapping[str, object], path: str) -> list[str]:
    if keys is None:
        return list(present)
    for key in keys:
        if key not in present:
            raise KeyError(f"{path} has no key {key!r:.80}")
    return list(dict.fromkeys(keys))


def _record_of(cls: type[_Record], arrays: dict[str, Array], origin: Origin) -> _Record:
    record = cls.__new__(cls)
    record.update(arrays)
    record.origin = origin
    return record


def _done_with(
    record: Mapping[str, Any], keep_input: bool, work: Callable[[dict[str, Any]], int], restore: Callable[[dict[str, Any]], object]
) -> int:
    """Let `work` write the entries, which leave the record for it if that does not keep them."""
    if not isinstance(record, Mapping):
        raise TypeError(f"record must be a ParametersRecord or a mapping of str to arrays, got {type(record).__name__}")
    if keep_input:
        return work(dict(record.items()))
    if not isinstance(record, ParametersRecord):
        raise TypeError(
            f"keep_input=False empties a record, and this is a {type(record).__name__}: ParametersRecord(...) makes a record of it"
        )
    return pass_out(record, work, restore)


def _forgetting(items: dict[str, Any]) -> Callable[[Outgoing], None]:
    """Let go of what is written."""

    def forget(entry: Outgoing) -> None:
        items[entry.name] = None

    return forget


class _WayBack:
    """How entries that were let go come back, if the file that they were written to does not get its name."""

    _descriptor = -1
    _file: Replacement | None = None

    def opens(self, file: Replacement, layout: Layout) -> None:
        """From now on entries may be let go. Outlives the file's own descriptor."""
        self._layout = layout
        if file.lives_on:
            self._descriptor = os.dup(file.descriptor)
        else:
            self._file = file
            file.stays = True

    def restore(self, items: dict[str, Any]) -> None:
        """Put back what was let go: as views on the file, or read from it where it is going to be removed."""
        gone = [name for name, array in items.items() if array is None]
        if not gone:
            return
        if self._file is None:
            items.update(mapped(self._descriptor, self._layout, gone))
            return
        descriptor = self._file.reopened()
        try:
            items.update(own(descriptor, self._layout, gone))
        finally:
            os.close(descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self._file is not None:
            self._file.discard()


def _telling(send: Send, progress: Callable[[int], object]) -> Send:
    """Send, and tell `progress` how much that was."""

    def told(batch: list[memoryview]) -> None:
        nbytes = sum(map(len, batch))
        send(batch)
        progress(nbytes)

    return told
