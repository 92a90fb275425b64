"""What memray has captured: the heap over time, its peak, and which lines held it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import memray
import numpy as np

from .places import Blame, Place, blame

WINDOWS = 2000  # at most, into which the time is divided
Interval = tuple[int, int | None, int]  # the first window in which memory was held, the first in which it was not, and bytes


@dataclass
class Holder:
    """Memory that was allocated by one line, and by what it called there.

    Attributes
    ----------
    blame : Blame
        The line, what it called, and from where it was called for most of the memory.
    nbytes : int
        What it held at the peak.
    since : float
        From when on it held a twentieth of that and more, in seconds since the epoch.
    history : numpy.ndarray of int64
        The most it held between one of `Capture.times` and the next.
    """

    blame: Blame
    nbytes: int
    since: float
    history: np.ndarray


@dataclass
class Capture:
    """What was captured of a program.

    Attributes
    ----------
    times : numpy.ndarray of float64, shape (n,)
        When memory was looked at, in seconds since the epoch: first and last when tracking began and ended.
    heap : numpy.ndarray of int64, shape (n,)
        The most that was allocated since the time before, in bytes: requested, whether it was touched or not.
    resident : numpy.ndarray of int64, shape (n,)
        What of the process was in memory.
    peak : int
        The most that was allocated at once, in bytes.
    window : int
        When: the place in `times`.
    imports : int
        How much of the peak libraries had allocated as they were imported.
    holders : list of Holder
        Lines that at some time held a thousandth of the peak or more, those that held most at the peak first.
    """

    times: np.ndarray
    heap: np.ndarray
    resident: np.ndarray
    peak: int
    window: int
    imports: int
    holders: list[Holder]

    @property
    def counted(self) -> int:
        """The peak without what libraries had allocated as they were imported, in bytes."""
        return self.peak - self.imports

    @property
    def peak_time(self) -> float:
        """When the peak was, in seconds since the epoch."""
        return float(self.times[self.window])

    def beyond(self, nbytes: int) -> np.ndarray:
        """What each of the holders allocated when so many bytes were there already, and still held at the peak."""
        if not self.holders:
            return np.zeros(0, np.int64)
        lasting = [np.minimum.accumulate(holder.history[self.window :: -1])[::-1] for holder in self.holders]
        grown = np.diff(np.stack(lasting), axis=1, prepend=0)
        first = sorted(range(len(lasting)), key=lambda i: self.holders[i].since)  # where several came in one window
        in_order = grown[first].T.ravel()
        over = np.clip(in_order.cumsum() - nbytes, 0, in_order)
        found = np.zeros(len(lasting), np.int64)
        found[first] = over.reshape(-1, len(lasting)).sum(axis=0)
        return found


def read(path: Path, program: str = "") -> Capture:
    """Read a capture of memray's; one of a process that was killed, too.

    Parameters
    ----------
    path : Path
        The capture.
    program : str
        As for `places.blame`.

    Raises
    ------
    OSError
        If it is none.
    """
    with memray.FileReader(path, max_memory_records=WINDOWS) as reader:
        snapshots = list(reader.get_memory_snapshots())
        peak, end = reader.metadata.peak_memory, reader.metadata.end_time.timestamp()
        records, _ = reader.get_temporal_high_water_mark_allocation_records(merge_threads=True)
        held: dict[tuple[Place, str] | None, list[tuple[Blame | None, list[Interval]]]] = {}
        for record in records:
            found = blame(record.stack_trace(), program)
            intervals = [_numbers(interval) for interval in record.intervals]
            held.setdefault(found and (found.place, found.via), []).append((found, intervals))
    # A window ends when memory is looked at; what memray says of the last one may lie beyond.
    last = max((begin for blamed in held.values() for _, intervals in blamed for begin, _, _ in intervals), default=0)
    windows = max(last, len(snapshots)) + 1
    seen = [(snapshot.time / 1000, snapshot.rss) for snapshot in snapshots]
    seen += [(end, seen[-1][1] if seen else 0)] * (windows - len(seen))
    times = np.maximum.accumulate([time for time, _ in seen])  # of a process that was killed, the end is not known
    resident = np.array([rss for _, rss in seen], np.int64)
    histories = {key: _history([interval for _, found in blamed for interval in found], windows) for key, blamed in held.items()}
    heap = sum(histories.values(), np.zeros(windows, np.int64))
    at = int(heap.argmax())
    imports = int(histories.pop(None)[at]) if None in histories else 0
    holders = [_holder(history, at, times, held[key]) for key, history in histories.items() if history.max() >= max(heap[at] / 1000, 1)]
    holders.sort(key=lambda holder: (-holder.nbytes, -int(holder.history.max())))
    return Capture(times, heap, resident, peak, at, imports, holders)


def _numbers(interval: Any) -> Interval:
    return interval.allocated_before_snapshot, interval.deallocated_before_snapshot, interval.n_bytes


def _holder(history: np.ndarray, at: int, times: np.ndarray, blamed: list[tuple[Blame | None, list[Interval]]]) -> Holder:
    """One line, with the way on which it was reached for most of the memory."""
    most, _ = max(blamed, key=lambda pair: (_at(pair[1], at), max(nbytes for _, _, nbytes in pair[1])))
    assert most is not None
    below = np.flatnonzero(history[: at + 1] < max(history[at], 1) / 20)
    since = float(times[min(below[-1] + 1, at)]) if len(below) else float(times[0])
    return Holder(most, int(history[at]), since, history)


def _at(intervals: list[Interval], window: int) -> int:
    """What was held in one window."""
    return sum(nbytes for begin, until, nbytes in intervals if begin <= window and (until is None or window < until))


def _history(intervals: list[Interval], windows: int) -> np.ndarray:
    """What was held in each window."""
    changes = np.zeros(windows + 1, np.int64)
    for begin, until, nbytes in intervals:
        changes[begin] += nbytes
        changes[windows if until is None else until] -= nbytes
    return changes[:-1].cumsum()
