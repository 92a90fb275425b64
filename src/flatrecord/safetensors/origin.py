"""Where a record came from, and whether that is still what it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from .._core.array import Array
from .checksums import digests_of
from .files import FileState
from .outgoing import Outgoing


class Loaded(NamedTuple):
    """What an entry was when it was loaded."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    digest: str | None  # SHA-256 of the payload, in hexadecimal; None if it was saved without

    @classmethod
    def of(cls, array: Array, digest: str | None) -> Self:
        """What `array` is, just loaded, with its SHA-256 as it was saved."""
        return cls(array.dtype, tuple(array.shape), array.stype, digest)


@dataclass
class Origin:
    """What `ParametersRecord.verify` compares a record with."""

    files: list[FileState] = field(default_factory=list)  # as they were when the record was loaded
    entries: dict[str, Loaded] = field(default_factory=dict)

    def verify(self, record: Mapping[str, Array], contents: bool) -> None:
        """Raise a ValueError if a file is not the one that was loaded, or `contents` are not what was saved."""
        for file in self.files:
            _check(file)
        if not contents:
            return
        for name, loaded in self.entries.items():
            if loaded.digest is None:
                raise ValueError(f"key {name!r}: it was saved without a checksum to compare with: save(..., checksum=True) writes one")
            if name not in record:
                raise ValueError(f"key {name!r}: it was loaded, and is not in the record any more")
            found = Loaded.of(record[name], loaded.digest)
            if found != loaded:
                raise ValueError(f"key {name!r}: it is {found[:3]}, and was {loaded[:3]} when it was loaded")
        for name, digest in digests_of(Outgoing(name, record[name]) for name in self.entries):
            if digest != self.entries[name].digest:
                raise ValueError(f"key {name!r}: its SHA-256 is {digest}, and was {self.entries[name].digest} when it was saved")


def _check(file: FileState) -> None:
    try:
        found = FileState.of(file.path, os.stat(file.path))
    except OSError as error:
        raise ValueError(f"{file.path}: cannot be found any more: {error.strerror}") from None
    if (found.device, found.inode) != (file.device, file.inode):
        raise ValueError(f"{file.path}: another file is in its place; a mapped record still shows the old one")
    if found.size != file.size:
        raise ValueError(f"{file.path}: has {found.size} bytes, and had {file.size} when it was loaded")
    if found.modified != file.modified:
        raise ValueError(f"{file.path}: was written to after it was loaded; a mapped record shows what was written")
