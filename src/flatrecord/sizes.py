"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import re

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def shown(nbytes: int) -> str:
    """A size in the largest of B, KiB, MiB and GiB of which there is one."""
    for unit in ("GiB", "MiB", "KiB"):
        if abs(nbytes) >= UNITS[unit]:
            return f"{nbytes / UNITS[unit]:.2f} {unit}"
    return f"{nbytes} B"


def parsed(text: str) -> int:
    """Bytes from ``"16060522496"``, ``"7.5GiB"`` or ``"16 GB"``.

    Raises
    ------
    ValueError
        If it is no such size, or none above 0.
    """
    found = re.fullmatch(r"\s*([0-9_]+(?:\.[0-9]*)?)\s*([A-Za-z]*)\s*", text)
    units = {unit.lower(): size for unit, size in UNITS.items()}
    unit = found and units.get(found[2].lower() or "b")
    if not found or not unit or not float(found[1]):
        raise ValueError(f"must be a size above 0 in bytes, or with one of {', '.join(UNITS)}; got {text!r}")
    return round(float(found[1]) * unit)
