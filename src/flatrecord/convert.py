"""Checkpoints from one format to another, an entry at a time: safetensors, NumPy's ``.npz``, torch's ``.pt``.

A safetensors file and a torch checkpoint are mapped, so that they take no memory; of an ``.npz`` the entry that is
being written is in memory. Only what torch has to write from an ``.npz`` is in memory as a whole.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from ._core.array import Array
from ._core.errors import add_name
from ._core.foreign import adapter
from ._core.record import ParametersRecord
from .dtypes import numpy_dtype
from .safetensors import inspect, load, save
from .safetensors.files import Replacement
from .safetensors.outgoing import Deferred, Outgoing, described, shown

SUFFIXES = {
    **dict.fromkeys((".safetensors", ".index.json"), "safetensors"),
    ".npz": "npz",
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), "torch"),
}
EXTENDED = "dtype="  # and the name: what we say of an array in a .npz whose dtype .npy cannot say

Progress = Callable[[int], object]


@dataclass
class Checkpoint:
    """What a file holds, without the memory for it."""

    kind: str  # "safetensors", "npz" or "torch"
    values: Mapping[str, Any]  # Arrays, tensors or Deferred
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """int: length of all arrays' elements."""
        return sum(Outgoing(name, value).nbytes for name, value in self.values.items())


def kind_of(path: str) -> str:
    """The format that a path's suffix stands for.

    Raises
    ------
    ValueError
        If it stands for none.
    """
    for suffix, kind in SUFFIXES.items():
        if path.endswith(suffix):
            return kind
    raise ValueError(f"{path}: unknown suffix; known are {', '.join(SUFFIXES)}")


def opened(path: str, stack: ExitStack, entry: str | None = None) -> Checkpoint:
    """What the checkpoint at `path` holds. `stack` closes what has to stay open while the values are used.

    Raises
    ------
    Exception
        As `convert`, of which this is the first half.
    """
    kind = kind_of(path)
    if entry is not None and kind != "torch":
        raise ValueError(f"{path}: only torch checkpoints have entries to choose from")
    if kind == "safetensors":
        return Checkpoint(kind, load(path), inspect(path).metadata)
    if kind == "npz":
        return Checkpoint(kind, _npz(path, stack), {"format": "np"})
    return Checkpoint(kind, _state_dict(path, entry), {"format": "pt"})


def convert(source: str, target: str, *, entry: str | None = None, begin: Progress | None = None, progress: Progress | None = None) -> int:
    """Write what is in one checkpoint to another, which is replaced all at once.

    Parameters
    ----------
    source, target : str
        Paths, whose suffixes say what they are.
    entry : str, optional
        Of a torch checkpoint that is a dict of more things, the key of its state_dict.
    begin, progress : callable, optional
        Called with the number of bytes that are to be written, and with that of each piece that was.

    Returns
    -------
    int
        Number of entries.

    Raises
    ------
    OSError
        If the source cannot be read, or the target not written. What was at `target` is as it was.
    TypeError, ValueError
        If the source is not a checkpoint of that format, holds other things than arrays, or would need pickle; with the key, if the
        other format cannot hold an array.
    ModuleNotFoundError
        If torch is needed and not installed.
    """
    write = {"safetensors": _to_safetensors, "npz": _to_npz, "torch": _to_torch}[kind_of(target)]
    if target.endswith(".index.json"):
        raise ValueError(f"{target}: one file is written, and an index is for several")
    with ExitStack() as stack:
        checkpoint = opened(source, stack, entry)
        nbytes = checkpoint.nbytes  # looks at every entry before anything is written
        if begin is not None:
            begin(nbytes)
        write(checkpoint, target, progress or (lambda count: None))
        return len(checkpoint.values)


# ---------------------------------------------------------------------------------------- reading


def _npz(path: str, stack: ExitStack) -> dict[str, Deferred]:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a .npz file: {error}") from None
    found = {member.filename.removesuffix(".npy"): _member(archive, member) for member in archive.infolist()}
    if len(found) != len(archive.infolist()):
        raise ValueError(f"{path}: two of its arrays have the same name")
    return found


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Deferred:
    name = member.filename
    try:
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"key {name!r}: not an array of NumPy's: {error}") from None
    if dtype.hasobject:
        raise ValueError(f"key {name!r}: it holds Python objects, which would need pickle")
    extended = None
    if member.comment.startswith(EXTENDED.encode()):
        extended = numpy_dtype(member.comment.decode("latin-1").removeprefix(EXTENDED))
    if extended is None or extended.itemsize != dtype.itemsize or dtype.kind != "V":
        extended = dtype

    def read() -> np.ndarray:
        with archive.open(member) as stream:
            try:
                return np.lib.format.read_array(stream, allow_pickle=False).view(extended)
            except (ValueError, zipfile.BadZipFile) as error:
                raise ValueError(f"key {name!r}: {error}") from None

    return Deferred(extended, shape, read)


def _state_dict(path: str, entry: str | None) -> Mapping[str, Any]:
    adapter("torch")  # or the error that says that torch is not there
    import torch

    with open(path, "rb"):
        pass  # torch has other words for a file that is not there
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        found = torch.load(path, mmap=zipfile.is_zipfile(path), **options)
    except Exception as error:
        raise ValueError(f"{path}: torch cannot load it with weights_only=True: {str(error).splitlines()[0]}") from None
    if entry is not None:
        if not isinstance(found, Mapping) or entry not in found:
            raise ValueError(f"{path}: has no entry {entry!r}{_entries_of(found)}")
        found = found[entry]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(f"{path}: is not a dict of tensors{_entries_of(found)}")
    return {name: value.detach() for name, value in found.items()}


def _entries_of(found: object) -> str:
    if not isinstance(found, Mapping):
        return f", but a {type(found).__name__}"
    choices = [str(key) for key, value in found.items() if isinstance(value, Mapping)]
    return f"; choose one of its dicts by --entry: {', '.join(choices)}" if choices else ""


# ---------------------------------------------------------------------------------------- writing


def _to_safetensors(checkpoint: Checkpoint, target: str, progress: Progress) -> None:
    save(checkpoint.values, target, checkpoint.metadata, progress=progress)


def _to_npz(checkpoint: Checkpoint, target: str, progress: Progress) -> None:
    with Replacement(target) as file:
        with os.fdopen(os.dup(file.descriptor), "wb") as stream, zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
            for name, value in checkpoint.values.items():
                member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))  # the same input gives the same file
                try:
                    array = _as_array(value)
                    if array.numpy(copy=False).dtype.type.__module__ == "ml_dtypes":
                        member.comment = f"{EXTENDED}{array.dtype}".encode()
                    with archive.open(member, "w", force_zip64=True) as part:  # how long it is need not be known before
                        array.write_to(_Told(part, progress))
                except (TypeError, ValueError) as error:
                    add_name(error, name)
                    raise
                del array, value
        file.commit()  # which some systems do only with what is closed elsewhere


def _to_torch(checkpoint: Checkpoint, target: str, progress: Progress) -> None:
    form = adapter("torch").Form()
    for name, value in checkpoint.values.items():
        try:
            dtype, _ = described(value)
            if dtype is None:
                raise TypeError(f"stype {value.stype!r} is none that torch can hold")
            form.check(dtype)
        except TypeError as error:
            add_name(error, name)
            raise
    import torch

    if checkpoint.kind == "torch":
        tensors: Mapping[str, Any] = checkpoint.values
    elif isinstance(checkpoint.values, ParametersRecord):
        tensors = checkpoint.values.to_torch_state_dict()
    else:
        tensors = ParametersRecord({name: shown(value) for name, value in checkpoint.values.items()}).to_torch_state_dict()
    with Replacement(target) as file:
        with os.fdopen(os.dup(file.descriptor), "wb") as stream:
            told: Any = _Told(stream, progress)
            try:
                torch.save(dict(tensors), told)
            except RuntimeError:
                if told.error is None:
                    raise
                raise told.error from None  # of which torch says that it is at an unexpected position
            finally:
                told.error = None  # its traceback leads back here
        file.commit()


def _as_array(value: Any) -> Array:
    """An Array on the memory of `value`, where that can be."""
    if isinstance(value, Array):
        return value
    array = shown(value)
    return Array(array, copy=False if array.flags.forc else None)


class _Told:
    """A file that tells how much is written to it."""

    def __init__(self, stream: IO[bytes], progress: Progress) -> None:
        self._stream, self._progress = stream, progress
        self.error: OSError | None = None  # of the last write that failed

    def write(self, data: Any) -> int:
        try:
            count = self._stream.write(data)
        except OSError as error:
            self.error = error
            raise
        self._progress(count)
        return count

    def flush(self) -> None:
        self._stream.flush()
