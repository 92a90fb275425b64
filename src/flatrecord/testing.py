"""The peak memory of a block of code, for tests: measured, and asserted to be flat.

For pytest there is the fixture ``peak_memory``, which is there wherever flatrecord is installed.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from ._core.buffer import empty_cache
from .profile.places import Blame
from .profile.resident import forget_peak, status
from .sizes import shown

__all__ = ["Peak", "assert_flat", "in_fresh_process", "measure_peak"]

LINES = 8  # that are named in an error
Result = TypeVar("Result")


@dataclass
class Peak:
    """What a block of code took at its peak, over what was there before it.

    Attributes
    ----------
    nbytes : int
        Bytes; -1 until the block has ended.
    resident : bool
        Whether this is memory that was resident, or memory that was asked for.
    held : list of (Blame, int)
        Which lines held it, and how many bytes each; the largest first. Empty where `resident`.
    """

    nbytes: int = -1
    resident: bool = False
    held: list[tuple[Blame, int]] = field(default_factory=list)

    def described(self, model_bytes: int) -> str:
        """The lines that held it, with what they held as multiples of a model."""
        rows = [f"{shown(nbytes):>12}  {nbytes / model_bytes:5.2f}  {_described(blame)}" for blame, nbytes in self.held[:LINES]]
        rest = self.nbytes - sum(nbytes for _, nbytes in self.held[:LINES])
        return "\n".join([*rows, f"{shown(rest):>12}  {rest / model_bytes:5.2f}  all others"])


@contextmanager
def measure_peak(*, resident: bool = False) -> Iterator[Peak]:
    """Measure what a block takes at its peak, over what was there before it.

    Parameters
    ----------
    resident : bool
        False measures what is asked for, touched or not, with memray: exact to the byte, whatever ran before, and tells
        the lines. It counts mappings of files in full. True measures what the system gives the process (``VmHWM`` over the
        ``VmRSS`` at the beginning, Linux only): what it is killed for. It is exact to some MiB, and only where the process has
        not freed much memory before, which it may use again: see `in_fresh_process`.

    Yields
    ------
    Peak
        Filled when the block has ended.

    Raises
    ------
    RuntimeError
        If memray or tracemalloc is tracking this process already, as in another such block: their own memory would be measured.
    ImportError
        If memray is needed and not installed.
    OSError
        If `resident` is asked for on another system than Linux.
    """
    __tracebackhide__ = True
    _refuse_other_trackers()
    empty_cache()  # what is in it was asked for before
    peak = Peak(resident=resident)
    if resident:
        before = status("VmRSS")
        forget_peak()
        try:
            yield peak
        finally:
            peak.nbytes = status("VmHWM") - before
        return
    try:
        import memray
    except ImportError:
        raise ImportError("flatrecord.testing needs memray, but for resident=True: pip install 'flatrecord[profile]'") from None

    with TemporaryDirectory(prefix="flatrecord-testing-") as folder:
        path = Path(folder) / "capture.bin"
        try:
            # Without trace_python_allocators the 1 MiB arenas of pymalloc would show, not the objects.
            with memray.Tracker(path, trace_python_allocators=True):
                yield peak
        finally:
            _read(path, peak)


@contextmanager
def assert_flat(model_bytes: int, tolerance: float = 0.05, *, copies: float = 0, resident: bool = False) -> Iterator[Peak]:
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

    Yields
    ------
    Peak
        Filled when the block has ended.

    Raises
    ------
    AssertionError
        If the peak was more than ``(copies + tolerance) * model_bytes``; the message names the lines that held it.
    RuntimeError, ImportError, OSError
        As for `measure_peak`.
    ValueError
        If `model_bytes` is not above 0, or `tolerance` or `copies` is below.

    Examples
    --------
    >>> model = {f"layer{i}": np.zeros((1024, 1024), np.float32) for i in range(16)}
    >>> with assert_flat(sum(array.nbytes for array in model.values())):
    ...     record = flatrecord.ParametersRecord(model)
    """
    __tracebackhide__ = True  # pytest then shows the test, not this
    if not model_bytes > 0 or not tolerance >= 0 or not copies >= 0:
        raise ValueError(f"model_bytes must be above 0, tolerance and copies at least 0; got {model_bytes}, {tolerance} and {copies}")
    with measure_peak(resident=resident) as peak:
        yield peak
    allowed = (copies + tolerance) * model_bytes
    if peak.nbytes > allowed:
        kind = "resident memory grew by" if resident else "the block held"
        where = f"held at the peak by:\n{peak.described(model_bytes)}" if peak.held else "without resident=True the lines are named"
        raise AssertionError(
            f"{kind} {shown(peak.nbytes)} at its peak, {peak.nbytes / model_bytes:.2f} models of {shown(model_bytes)}; "
            f"allowed are {copies + tolerance:g}\n{where}"
        )


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
        What it returns.

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
            raise RuntimeError(f"the process in which {function.__qualname__} was called ended before it returned: was it killed?") from None


def _refuse_other_trackers() -> None:
    """Raise if something is tracking allocations, whose own memory and hooks would be in the way."""
    __tracebackhide__ = True
    if tracemalloc.is_tracing():
        raise RuntimeError("tracemalloc is tracing this process: what it needs itself would be measured; stop it before")
    if "memray" not in sys.modules:
        return
    memray: Any = sys.modules["memray"]
    with TemporaryDirectory(prefix="flatrecord-testing-") as folder:
        try:
            with memray.Tracker(Path(folder) / "probe.bin"):
                pass
        except RuntimeError:
            raise RuntimeError(
                "memray is tracking this process already (memray run, pytest --memray, flatrecord profile, or a block around this one): "
                "its trackers do not nest"
            ) from None


def _read(path: Path, peak: Peak) -> None:
    from .profile import captures

    captured = captures.read(path)
    peak.nbytes = captured.peak
    peak.held = [(holder.blame, holder.nbytes) for holder in captured.holders if holder.nbytes]


def _described(blame: Blame) -> str:
    callers = "".join(f" < {place}" for place in blame.callers)
    called = f"  ({blame.via})" if blame.via else ""
    return f"{blame.place}{callers}{called}  {blame.place.source}"
