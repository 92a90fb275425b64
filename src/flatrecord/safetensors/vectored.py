"""Lists of memoryviews that are moved by one system call, which may stop short."""

from __future__ import annotations

MOST = 512  # views in one call; Linux takes 1024 (IOV_MAX)


def advance(views: list[memoryview], count: int) -> None:
    """Take away the first `count` bytes, which have been moved."""
    whole = 0
    while whole < len(views) and count >= len(views[whole]):
        count -= len(views[whole])
        whole += 1
    del views[:whole]
    if count:
        views[0] = views[0][count:]
