"""What type checkers make of the helpers for tests, read as `core_uses.py`."""

from typing import assert_type

from flatrecord.profile import phase
from flatrecord.testing import Peak, assert_flat, in_fresh_process, measure_peak


def blocks(model_bytes: int) -> None:
    with assert_flat(model_bytes, 0.1, copies=1, resident=True) as peak:
        assert_type(peak, Peak)
    with measure_peak() as measured:
        pass
    assert_type(measured.nbytes, int)
    assert_flat()  # error: call-arg
    assert_flat("1 GiB")  # error: arg-type
    assert_flat(model_bytes, 0.1, 1)  # error: call-arg
    measure_peak(True)  # error: call-arg
    with phase("load"):
        pass
    phase(3)  # error: arg-type


def doubled(number: int) -> float:
    return 2.0 * number


def fresh() -> None:
    assert_type(in_fresh_process(doubled, 3), float)
    in_fresh_process(3)  # error: arg-type
