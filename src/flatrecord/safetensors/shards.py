"""Checkpoints in several files: ``model.safetensors.index.json``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby

from .files import Source, naming
from .layout import fault, strict_json

SUFFIX = ".index.json"
MAX_INDEX = 100_000_000  # bytes


def weight_map(path: str) -> dict[str, str]:
    """Which file, beside the index, has the entry of each name.

    Raises
    ------
    ValueError
        If it is not such an index, or names a file elsewhere.
    """
    with naming(path):
        with open(path, "rb") as file:
            nbytes = os.fstat(file.fileno()).st_size
            if nbytes > MAX_INDEX:
                raise fault(f"the index has {nbytes} bytes, more than {MAX_INDEX}")
            data = file.read(nbytes)  # and not of MAX_INDEX: Python takes memory for as much as it is asked for
        try:
            found = strict_json(data.decode()).get("weight_map")
        except UnicodeDecodeError as error:
            raise fault(f"the index is not UTF-8 at byte {error.start}") from None
        if not isinstance(found, dict):
            raise fault("the index has no weight_map")
        for name, file_name in found.items():
            # A path would let whoever wrote the index have any file read.
            is_name = isinstance(file_name, str) and os.path.basename(file_name) == file_name and "\0" not in file_name
            if not is_name or file_name in ("", ".", ".."):
                raise fault(f"key {name!r:.80} should be in {file_name!r:.80}, which is not the name of a file beside the index")
        return found


def sources(path: str, names: dict[str, str]) -> Iterator[tuple[Source, list[str]]]:
    """Each file that holds some of `names`, open until the next is asked for, and which.

    Parameters
    ----------
    path : str
        Of the index.
    names : dict of str to str
        The part of `weight_map` that is wanted.
    """
    folder = os.path.dirname(path)
    for file_name, members in groupby(sorted(names, key=names.__getitem__), key=names.__getitem__):
        with Source(os.path.join(folder, file_name)) as source:
            wanted = list(members)
            for name in wanted:
                if name not in source.layout.slots:
                    raise fault(f"{path}: key {name!r:.80} should be in {file_name}, and is not there")
            yield source, wanted
