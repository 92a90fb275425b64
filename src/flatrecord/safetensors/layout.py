"""What safetensors puts before the payloads: parsed, written, and what is where.

The format, https://huggingface.co/docs/safetensors: eight bytes with the header's length, the header, which is
JSON, and the payloads without a gap, row-major and little-endian. What is parsed may come from anybody: every fault is a
`ValueError` with the reason.

Ours besides, all within the format:

- The header lists the entries in the record's order, and so do the payloads lie, as far as they can be aligned so.
- The header is padded so that the payloads begin at a multiple of 64 bytes. The format allows no gaps further on, so
  those whose length is no multiple of 64 come last. Where the elements of one of them would not be aligned to their own
  size, these are put in the order of the power of two that divides their length.
- What the format has no dtype for travels as U8. What restores it stands in the metadata, as JSON under ``flatrecord``.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ..dtypes import SAFETENSORS, numpy_dtype

ALIGNMENT = 64
MAX_HEADER = 100_000_000  # bytes; the reference library refuses longer ones
PREFIX = 8  # bytes that give the header's length
MAX_AXES = 64  # NumPy 2's own limit
MAX_SIZE = 2**63 - 1
MAX_DIGITS = 20
_MANY_DIGITS = re.compile(rf"\d{{{MAX_DIGITS + 1}}}", re.ASCII)
METADATA = "__metadata__"
OURS = "flatrecord"


def little_endian(dtype: np.dtype) -> np.dtype:
    """`dtype` in the byte order of the format."""
    # The very same object where that will do: it is what tells NumPy's dtypes apart fastest.
    return dtype if dtype.isnative and sys.byteorder == "little" else dtype.newbyteorder("<")


DTYPES = {code: little_endian(dtype) for code, name in SAFETENSORS.items() if (dtype := numpy_dtype(name)) is not None}
CODES = {dtype: code for code, dtype in DTYPES.items()}
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, **{code: 8 * dtype.itemsize for code, dtype in DTYPES.items()}}


@dataclass(frozen=True, slots=True)
class Serialized:
    """What restores an Array that travels as raw bytes."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    preamble: bytes  # what `.npy` puts before the payload; empty where the payload holds its own


class Slot(NamedTuple):  # of which there may be many: made in half the time that a dataclass takes
    """What the header says of one entry. Offsets are in bytes from the first payload."""

    code: str  # the dtype in the format's own words
    shape: tuple[int, ...]
    start: int
    stop: int
    serialized: Serialized | None = None

    @property
    def nbytes(self) -> int:
        """Length of the payload."""
        return self.stop - self.start


@dataclass
class Layout:
    """What is where in a file."""

    slots: dict[str, Slot]  # in the header's order
    metadata: dict[str, str] = field(default_factory=dict)  # without ours
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 of payloads, in hexadecimal
    begin: int = 0  # where the payloads begin in the file

    @property
    def nbytes(self) -> int:
        """Length of all payloads."""
        return sum(slot.nbytes for slot in self.slots.values())

    def in_file_order(self) -> list[str]:
        """The names in the order in which the payloads lie."""
        return sorted(self.slots, key=lambda name: (self.slots[name].start, self.slots[name].stop))


def fault(reason: str) -> ValueError:
    """The error that refuses a file for `reason`."""
    return ValueError(f"not valid safetensors: {reason}")


# ---------------------------------------------------------------------------------------- writing


def arranged(sizes: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Where each payload starts, by name and in file order.

    Parameters
    ----------
    sizes : mapping of str to (int, int)
        The payloads' lengths and those of their elements, in bytes and in the record's order.
    """
    whole = [name for name, (nbytes, _) in sizes.items() if nbytes % ALIGNMENT == 0]
    others = [name for name, (nbytes, _) in sizes.items() if nbytes % ALIGNMENT]
    starts = _one_after_another(whole + others, sizes)
    if any(starts[name] % (itemsize or 1) for name, (_, itemsize) in sizes.items()):
        others.sort(key=lambda name: -(sizes[name][0] & -sizes[name][0]))
        starts = _one_after_another(whole + others, sizes)
    return starts


def _one_after_another(names: Iterable[str], sizes: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    starts, at = {}, 0
    for name in names:
        starts[name] = at
        at += sizes[name][0]
    return starts


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's metadata, or the error that says why it cannot be written."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping of str to str, got {type(metadata).__name__}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must map str to str, got {type(key).__name__} {key!r:.80} to {type(value).__name__}")
        if key == OURS:
            raise ValueError(f"metadata key {OURS!r} is taken: what flatrecord itself has to restore stands there")
        check_text(f"metadata key {key!r:.80}", key, value)
    return dict(metadata)


def check_text(where: str, *texts: str) -> None:
    """Raise a ValueError if a text holds half of a surrogate pair, which UTF-8 cannot say."""
    for text in texts:
        try:
            text.isascii() or text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{where}: the text {text!r:.80} cannot be written as UTF-8") from None


def encoded(layout: Layout) -> bytes:
    """The beginning of a file, up to its first payload, whose place is entered in `layout`.

    Raises
    ------
    ValueError
        If it is longer than the format allows.
    """
    ours: dict[str, Any] = {}
    serialized = {name: slot.serialized for name, slot in layout.slots.items() if slot.serialized is not None}
    if serialized:
        ours["serialized"] = {
            name: [kept.dtype, kept.shape, kept.stype, kept.preamble.decode("latin-1")] for name, kept in serialized.items()
        }
    if layout.digests:
        ours["sha256"] = layout.digests
    metadata = {**layout.metadata, **({OURS: _json(ours)} if ours else {})}
    parts = [f"{_json(METADATA)}:{_json(metadata)}"] if metadata else []
    for name, (code, shape, start, stop, _) in layout.slots.items():
        sizes = ",".join(map(str, shape))
        parts.append(f'{_json(name)}:{{"dtype":"{code}","shape":[{sizes}],"data_offsets":[{start},{stop}]}}')
    text = f"{{{','.join(parts)}}}".encode()
    length = len(text) + -(PREFIX + len(text)) % ALIGNMENT
    if length > MAX_HEADER:
        raise ValueError(f"the header of {len(layout.slots)} entries has {length} bytes, more than safetensors' {MAX_HEADER}")
    layout.begin = PREFIX + length
    return length.to_bytes(PREFIX, "little") + text.ljust(length)


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


# ---------------------------------------------------------------------------------------- parsing


def header_length(prefix: bytes | bytearray, available: int | None = None) -> int:
    """The length of a header, in bytes.

    Parameters
    ----------
    prefix : bytes-like
        The first eight bytes.
    available : int, optional
        How many bytes there are in all, where that is known.

    Raises
    ------
    ValueError
        If there cannot be such a header.
    """
    if len(prefix) < PREFIX:
        raise fault(f"it has {len(prefix)} bytes, fewer than the {PREFIX} that say how long the header is")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        raise fault(f"the header claims {length} bytes, more than {MAX_HEADER}")
    if available is not None and length > available - PREFIX:
        raise fault(f"the header claims {length} bytes, {available - PREFIX} are there")
    return length


def parsed(header: bytes | bytearray, available: int | None = None) -> Layout:
    """Parse a header.

    Parameters
    ----------
    header : bytes-like
        The JSON, without the length before it.
    available : int, optional
        How many bytes of payload there are, where that is known.

    Raises
    ------
    ValueError
        If it is not the header of a whole and consistent file.
    """
    if not header.startswith(b"{"):
        raise fault("the header is not a JSON object")
    try:
        text = header.decode()
    except UnicodeDecodeError as error:
        raise fault(f"the header is not UTF-8 at byte {error.start}") from None
    entries = strict_json(text)
    metadata = entries.pop(METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise fault(f"{METADATA} does not map text to text")
    serialized, digests = _ours(metadata.pop(OURS, "{}"), entries)
    slots = {name: _slot(name, entry, serialized.get(name)) for name, entry in entries.items()}
    layout = Layout(slots, metadata, digests, PREFIX + len(header))
    end = 0
    for name in layout.in_file_order():
        slot = slots[name]
        if slot.start != end:
            what = "overlaps what comes before it" if slot.start < end else f"leaves a hole of {slot.start - end} bytes before it"
            raise fault(f"key {name!r:.80}: its payload at {slot.start} {what}")
        end = slot.stop
    if available is not None and end != available:
        raise fault(f"the payloads should have {end} bytes in all, {available} are there")
    return layout


def strict_json(text: str) -> dict[str, Any]:
    """Parse a JSON object in which no key comes twice and every text is text."""
    # Looked for in the whole, as a header may hold many thousands of numbers and texts; keys may hold digits too.
    parse_int = _integer if _MANY_DIGITS.search(text) else None
    pairs_hook = _without_duplicates_of_text if "\\u" in text else _without_duplicates
    try:
        found = json.loads(text, object_pairs_hook=pairs_hook, parse_int=parse_int, parse_constant=_no_constant)
    except RecursionError:
        raise fault("the JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise fault(f"the JSON is broken: {error}") from None
    if not isinstance(found, dict):
        raise fault(f"the JSON is a {type(found).__name__}, not an object")
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise fault(f"key {name!r:.80} comes twice")
    return found


def _without_duplicates_of_text(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, value in pairs:
        for part in (name, value) if isinstance(value, str) else (name,):
            try:
                part.isascii() or part.encode()
            except UnicodeEncodeError:
                raise fault(f"{part!r:.80} is not text") from None
    return _without_duplicates(pairs)


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise fault(f"a number has {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise fault(f"the JSON holds {name}")


def _slot(name: str, entry: Any, serialized: Serialized | None) -> Slot:
    """What is said of one entry, if it agrees with itself."""
    try:
        return _checked_slot(entry, serialized)
    except ValueError as error:
        raise fault(f"key {name!r:.80}: {error}") from None


def _checked_slot(entry: Any, serialized: Serialized | None) -> Slot:
    if not isinstance(entry, dict) or not ("dtype" in entry and "shape" in entry and "data_offsets" in entry):
        raise ValueError("it is not an object with dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _BITS:
        raise ValueError(f"unknown dtype {code!r:.80}")
    if not _sizes(shape):
        raise ValueError(f"its shape {shape!r:.80} is not a list of sizes")
    if len(shape) > MAX_AXES:
        raise ValueError(f"its shape has {len(shape)} axes, more than {MAX_AXES}")
    if not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"its data_offsets {offsets!r:.80} are not two offsets")
    start, stop = offsets
    if stop < start:
        raise ValueError(f"its data_offsets {offsets} run backwards")
    bits = prod(shape) * _BITS[code]
    # NumPy makes no array whose other axes overflow, even if it is empty.
    if (bits or prod(size for size in shape if size) * _BITS[code]) > 8 * MAX_SIZE:
        raise ValueError(f"its shape {shape!r:.80} overflows")
    if bits % 8 or bits // 8 != stop - start:
        needed = -(-bits // 8)
        raise ValueError(f"{code} of shape {shape!r:.80} needs {needed} bytes, its data_offsets {offsets} hold {stop - start}")
    if serialized is not None and (code != "U8" or len(shape) != 1):
        raise ValueError(f"it should be restored from raw bytes, but has dtype {code} and {len(shape)} axes")
    return Slot(code, tuple(shape), start, stop, serialized)


def _sizes(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    for size in value:  # a third of the time of all() and a generator
        if type(size) is not int or not 0 <= size <= MAX_SIZE:
            return False
    return True


def _ours(text: str, entries: Mapping[str, Any]) -> tuple[dict[str, Serialized], dict[str, str]]:
    """What our own part of the metadata says: what is serialized, and the checksums."""
    found = strict_json(text)
    serialized, digests = found.get("serialized", {}), found.get("sha256", {})
    if not isinstance(serialized, dict) or not isinstance(digests, dict):
        raise fault(f"the metadata {OURS!r} is not what flatrecord writes")
    _check_listed({*serialized, *digests}, entries)
    if not all(isinstance(digest, str) for digest in digests.values()):
        raise fault(f"the checksums in the metadata {OURS!r} are not text")
    return {name: _restoring(name, parts) for name, parts in serialized.items()}, digests


def _check_listed(names: Iterable[str], entries: Mapping[str, Any]) -> None:
    for name in names:
        if name not in entries:
            raise fault(f"the metadata {OURS!r} names key {name!r:.80}, which is not there")


def _restoring(name: str, parts: Any) -> Serialized:
    match parts:
        case [str(dtype), list(shape), str(stype), str(preamble)] if _sizes(shape):
            try:
                (dtype + stype).encode()
                return Serialized(dtype, tuple(shape), stype, preamble.encode("latin-1"))
            except UnicodeEncodeError:
                pass
    raise fault(f"key {name!r:.80}: what restores it in the metadata {OURS!r} is not what flatrecord writes")


def dtype_of(name: str, code: str) -> np.dtype:
    """The dtype of an entry's elements, as they lie in the file.

    Raises
    ------
    ValueError
        If NumPy has none.
    """
    if code not in DTYPES:
        raise ValueError(f"key {name!r:.80}: NumPy has no dtype for safetensors' {code}")
    return DTYPES[code]
