"""Memory of this process that is resident, as Linux counts it; and what other systems say instead."""

from __future__ import annotations

import sys


def status(name: str) -> int:
    """A field of ``/proc/self/status`` in bytes: ``VmRSS``, or ``VmHWM`` for the peak of it.

    Raises
    ------
    OSError
        On systems other than Linux, which have no such file.
    """
    if sys.platform != "linux":
        raise OSError(f"resident memory is read from Linux's /proc, and this is {sys.platform}")
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name + ":"))


def observed(name: str) -> int:
    """As `status`. Where there is no such file, the peak in place of either: other systems tell no more without a library."""
    if sys.platform == "linux":
        return status(name)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let ``VmHWM`` start again from what is resident now."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
