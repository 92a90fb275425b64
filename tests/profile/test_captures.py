"""What is read from a capture adds up, to the byte, wherever the peak lies."""

from pathlib import Path

import memray
import numpy as np
import pytest

from flatrecord.profile.captures import read

pytestmark = pytest.mark.memory

MIB = 1 << 20


@pytest.fixture
def captured(tmp_path):
    def run(work):
        with memray.Tracker(tmp_path / "x.bin", memory_interval_ms=1):
            work()
        return read(tmp_path / "x.bin"), memray.FileReader(tmp_path / "x.bin").metadata.peak_memory

    return run


def first():
    return np.empty(50 * MIB, np.uint8)


def second():
    return np.empty(30 * MIB, np.uint8)


def at_the_end():
    x, y = first(), second()
    return x, y


def freed_at_once():
    x, y = first(), second()
    del x, y
    z = second()  # noqa: F841


def in_the_middle():
    import time

    x = first()
    time.sleep(0.02)
    y = second()
    time.sleep(0.02)
    del x, y
    time.sleep(0.02)
    second()


@pytest.mark.parametrize("work", [at_the_end, freed_at_once, in_the_middle])
def test_the_peak_is_where_it_is(captured, work):
    capture, peak = captured(work)
    assert capture.peak == pytest.approx(peak, abs=64 << 10) and peak >= 80 * MIB
    held = {holder.blame.place.function: holder.nbytes for holder in capture.holders if holder.nbytes > MIB}
    assert held == {"first": pytest.approx(50 * MIB, abs=4096), "second": pytest.approx(30 * MIB, abs=4096)}
    assert len(capture.times) == len(capture.heap) == len(capture.resident)
    assert (np.diff(capture.times) >= 0).all() and capture.times[0] <= capture.peak_time <= capture.times[-1]
    assert all((holder.history >= 0).all() and holder.history.sum() for holder in capture.holders)


def test_who_was_first(captured):
    capture, _ = captured(in_the_middle)
    since = {holder.blame.place.function: holder.since for holder in capture.holders if holder.nbytes > MIB}
    assert since["first"] < since["second"] <= capture.peak_time


def test_the_largest_way_is_told(captured):
    def twice():
        a = first()
        b = [first() for _ in range(3)]
        return a, b

    capture, _ = captured(twice)
    (holder,) = [holder for holder in capture.holders if holder.nbytes > MIB]
    assert holder.nbytes == pytest.approx(200 * MIB, abs=4096) and holder.blame.callers[0].source.startswith("b = [first()")


def test_what_is_no_capture_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(OSError):
        read(Path(path))
