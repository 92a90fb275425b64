"""Sizes in bytes, and what copies of equal arrays take beside theirs."""

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def beginnings(entries: int, total: int) -> int:
    """What copies of so many equal arrays take beside `total` bytes: a large one begins as far into a page as its source."""
    return entries * 4 * KIB if total // entries >= MIB else 0
