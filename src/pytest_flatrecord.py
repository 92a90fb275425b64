"""The pytest plugin of flatrecord: the fixture ``peak_memory``.

A module of its own, outside the package, so that pytest runs which do not ask for it import nothing of flatrecord.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flatrecord.testing import Peak

PROPERTY = "peak_memory_bytes"


@pytest.fixture
def peak_memory(record_property: Callable[[str, object], None]) -> Callable[..., AbstractContextManager[Peak]]:
    """Measure the peak memory of blocks in a test, which ``pytest -v`` and JUnit reports then tell.

    ``with peak_memory() as peak:`` measures as `flatrecord.testing.measure_peak` does;
    ``with peak_memory(model_bytes, tolerance, ...):`` also asserts, as `flatrecord.testing.assert_flat` does.
    """
    from flatrecord.testing import assert_flat, measure_peak

    @contextmanager
    def measured(model_bytes: int | None = None, *args: Any, resident: bool = False, **kwargs: Any) -> Iterator[Peak]:
        __tracebackhide__ = True
        if model_bytes is None and (args or kwargs):
            raise TypeError(f"peak_memory needs model_bytes to assert anything; got only {[*args, *kwargs]}")
        block = measure_peak if model_bytes is None else partial(assert_flat, model_bytes, *args, **kwargs)
        peak: Peak | None = None
        try:
            with block(resident=resident) as peak:
                yield peak
        finally:
            if peak is not None and peak.nbytes >= 0:
                record_property(PROPERTY, peak.nbytes)

    return measured


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """With ``-v``, list what was measured."""
    if config.get_verbosity() < 1:
        return
    reports = [report for reports in terminalreporter.stats.values() for report in reports if getattr(report, "when", "") == "call"]
    rows = [(report.nodeid, nbytes) for report in reports for name, nbytes in report.user_properties if name == PROPERTY]
    if rows:
        from flatrecord.sizes import shown

        terminalreporter.section("peak memory")
        for nodeid, nbytes in rows:
            terminalreporter.line(f"{shown(nbytes):>12}  {nodeid}")
