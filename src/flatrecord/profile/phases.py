"""Parts of a program that have a name in its profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Recorder = Callable[[str], AbstractContextManager[None]]

_recorder: Recorder = lambda name: nullcontext()  # noqa: E731  (replaced while a program is profiled)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Name what happens in a block, for the timeline of ``flatrecord profile``; elsewhere it does nothing.

    Parameters
    ----------
    name : str
        What the block does, such as ``"train"``.

    Examples
    --------
    >>> with phase("train"):
    ...     pass
    """
    with _recorder(name):
        yield


def record_with(recorder: Recorder) -> None:
    """From now on let `recorder` know of every phase."""
    global _recorder
    _recorder = recorder
