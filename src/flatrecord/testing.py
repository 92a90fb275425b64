"""The peak memory of a block of code, for tests: measured, and asserted to be flat.

For pytest there is the fixture ``peak_memory``, which is there wherever flatrecord is installed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar

from ._core.buffer import empty_cache
from .profile.extra import missing
from .profile.places import Blame
from .profile.resident import forget_peak, status
from .sizes import shown

__all__ = ["Peak", "assert_flat", "in_fresh_process", "measure_peak"]

LINES = 8  # that are named in an error
Result = TypeVar("Result")

_measuring = Lock()  # held while a block of this process is measured


@dataclass
class Peak:
    """What a block of code took at its peak, over what was there before it.

    Attributes
    ----------
    nbytes : int
        Bytes; -1 until the block has ended.
    resident : bool
        Whether this is memory that was resident, or memory that was asked for.
    imports : int
        How much of it libraries had allocated as they were imported. 0 where `resident`.
    held : list[tuple[flatrecord.profile.places.Blame, int]]
        Which lines held it, and how many bytes each; the largest first. Empty where `resident`.
    """

    nbytes: int = -1
    resident: bool = False
    imports: int = 0
    held: list[tuple[Blame, int]] = field(default_factory=list)


class _Block(AbstractContextManager[Peak]):
    """What stands in a ``with``; no decorator, which a coroutine's or a generator's function would leave before it has run."""

    def __init__(self, manager: AbstractContextManager[Peak]) -> None:
        self._manager = manager

    def __enter__(self) -> Peak:
        __tracebackhide__ = True  # pytest then shows the test, not this
        return self._manager.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        __tracebackhide__ = True
        return self._manager.__exit__(kind, error, trace)


def measure_peak(*, resident: bool = False) -> AbstractContextManager[Peak]:
    """Measure what a block takes at its peak, over what was there before it.

    Parameters
    ----------
    resident : bool
        False measures what is asked for, touched or not, with memray: exact to the byte, whatever ran before, and tells
        the lines. It counts mappings of files in full. True measures what the system gives the process (``VmHWM`` over the
        ``VmRSS`` at the beginning, Linux only): what it is killed for. It is exact to about 1 MiB, and only where the process has
        not freed much memory before, which it may use again: see `in_fresh_process`.

    Returns
    -------
    context manager
        It gives a `Peak`, which is filled when the block has ended.

    Raises
    ------
    RuntimeError
        On entry, if another block of this process is being measured, or memray or tracemalloc is tracking it: their own memory
        would be measured.
    ImportError
        On entry, if memray is needed and not installed.
    OSError
        On entry, if `resident` is asked for on another system than Linux.
    """
    return _Block(_measured(resident))


def assert_flat(model_bytes: int, tolerance: float = 0.05, *, copies: float = 0, resident: bool = False) -> AbstractContextManager[Peak]:
    """Assert that a block makes no more copies of a model than it should.

    Parameters
    ----------
    model_bytes : int
        The size of the model in bytes.
    tolerance : float
        What the block may take beside, at its peak, as a share of the model: the entry in flight and the objects around it. For
        a small model this has to be more.
    copies : float
        How many times it may bring the model into memory: 0 for one that is there already and is taken over, 1 for one that the
        block loads, receives or duplicates.
    resident : bool
        As for `measure_peak`.

    Returns
    -------
    context manager
        As of `measure_peak`.

    Raises
    ------
    ValueError
        If `model_bytes` is not above 0, or `tolerance` or `copies` is below.
    AssertionError
        When the block ends, if the peak was more than ``(copies + tolerance) * model_bytes``; the message names the lines that
        held it.
    RuntimeError, ImportError, OSError
        As for `measure_peak`.

    Examples
    --------
    >>> model = {f"layer{i}": np.zeros((1024, 1024), np.float32) for i in range(16)}
    >>> with assert_flat(sum(array.nbytes for array in model.values())):
    ...     record = flatrecord.ParametersRecord(model)
    """
    if not model_bytes > 0 or not tolerance >= 0 or not copies >= 0:
        raise ValueError(f"model_bytes must be above 0, tolerance and copies at least 0; got {model_bytes}, {tolerance} and {copies}")
    return _Block(_asserted(model_bytes, copies + tolerance, resident))


def in_fresh_process(function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
    """Call a function in a new process, where no memory has been used and freed before.

    Parameters
    ----------
    function : callable
        Of a module that can be imported, such as a test's own. With ``assert_flat(..., resident=True)`` inside it.
    *args, **kwargs
        What it is called with; pickled, so better not a model.

    Returns
    -------
    object
        What it returns, which is pickled, too.

    Raises
    ------
    RuntimeError
        If the process ends before the function returns, such as one that is killed for its memory.
    Exception
        Whatever the function raises, with its traceback there as the cause.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            raise RuntimeError(
                f"the process in which {function.__qualname__} was called ended before it returned: it was killed, or what it returned "
                "or raised cannot be pickled"
            ) from None


@contextmanager
def _measured(resident: bool) -> Iterator[Peak]:
    __tracebackhide__ = True
    if tracemalloc.is_tracing():
        raise RuntimeError("tracemalloc is tracing this process: what it needs itself would be measured; stop it before")
    if not _measuring.acquire(blocking=False):
        raise RuntimeError("another block of this process is being measured, around this one or in another thread: they do not nest")
    try:
        peak = Peak(resident=resident)
        empty_cache()  # what is in it was asked for before
        with (_resident if resident else _heap)(peak):
            yield peak
    finally:
        _measuring.release()


@contextmanager
def _resident(peak: Peak) -> Iterator[None]:
    __tracebackhide__ = True
    if "memray" in sys.modules:
        with TemporaryDirectory(prefix="flatrecord-testing-") as folder:
            _started(Path(folder) / "probe.bin").__exit__(None, None, None)
    before = status("VmRSS")
    forget_peak()
    try:
        yield
    finally:
        peak.nbytes = status("VmHWM") - before


@contextmanager
def _heap(peak: Peak) -> Iterator[None]:
    __tracebackhide__ = True
    process, folder = os.getpid(), Path(mkdtemp(prefix="flatrecord-testing-"))
    try:
        tracker = _started(folder / "capture.bin")
        try:
            yield
        finally:
            tracker.__exit__(None, None, None)
            if os.getpid() == process:  # and not a fork of it that leaves the block, too
                _read(folder / "capture.bin", peak)
    finally:
        if os.getpid() == process:
            shutil.rmtree(folder)


def _started(path: Path) -> Any:
    """A tracker of memray's at work."""
    __tracebackhide__ = True
    try:
        import memray
    except ImportError:
        raise ImportError(f"flatrecord.testing, but for resident=True, needs {missing('memray')}") from None
    # Without trace_python_allocators the 1 MiB arenas of pymalloc would show, not the objects.
    tracker = memray.Tracker(path, trace_python_allocators=True)
    try:
        tracker.__enter__()
    except RuntimeError:
        raise RuntimeError(
            "memray is tracking this process already (memray run, pytest --memray or flatrecord profile): two cannot"
        ) from None
    return tracker


def _read(path: Path, peak: Peak) -> None:
    from .profile import captures

    captured = captures.read(path)
    peak.nbytes, peak.imports = captured.peak, captured.imports
    peak.held = [(holder.blame, holder.nbytes) for holder in captured.holders if holder.nbytes]


@contextmanager
def _asserted(model_bytes: int, allowed: float, resident: bool) -> Iterator[Peak]:
    __tracebackhide__ = True
    with _measured(resident) as peak:
        yield peak
    if peak.nbytes > allowed * model_bytes:
        kind = "resident memory grew by" if resident else "the block held"
        where = "without resident=True the lines are named" if resident else f"held at the peak by:\n{_described(peak, model_bytes)}"
        raise AssertionError(
            f"{kind} {shown(peak.nbytes)} at its peak, {peak.nbytes / model_bytes:.2f} models of {shown(model_bytes)}; allowed are "
            f"{allowed:g}, which is {peak.nbytes - int(allowed * model_bytes):,} bytes less\n{where}"
        )


def _described(peak: Peak, model_bytes: int) -> str:
    """The lines that held a peak, with what they held as multiples of a model."""
    rows = [(nbytes, _named(blame)) for blame, nbytes in peak.held[:LINES]]
    if peak.imports:
        rows.append((peak.imports, "libraries that were imported"))
    rows.append((max(peak.nbytes - sum(nbytes for nbytes, _ in rows), 0), "all others"))
    return "\n".join(f"{shown(nbytes):>12}  {nbytes / model_bytes:5.2f}  {name}" for nbytes, name in rows)


def _named(blame: Blame) -> str:
    callers = "".join(f" < {place}" for place in blame.callers)
    called = f"  ({blame.via})" if blame.via else ""
    return f"{blame.place}{callers}{called}  {blame.place.source}"
