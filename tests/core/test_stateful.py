"""Random sequences of operations on records of ndarrays, and proof that the checks between them are awake."""

import ctypes
from typing import Any

import numpy as np
import pytest
from aliasing import check_read_only, payload
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from recipes import expected
from stateful import Records, bounded

from flatrecord import Array, ParametersRecord

TestRecords = Records.TestCase
TestRecords.settings = bounded(400)


def alias(array: Array) -> np.ndarray:
    """What must not be: an ndarray that writes to the memory of an Array."""
    address, nbytes = payload(array)
    return np.frombuffer((ctypes.c_char * nbytes).from_address(address), "u1")


class Borrowing(ParametersRecord):
    """Shares the memory of whatever it is given, though nobody has said that it may."""

    def __init__(self, array_dict: Any = None, keep_input: bool = False, *, copy: bool | None = None) -> None:
        try:
            super().__init__(array_dict, keep_input, copy=False)
        except ValueError:
            super().__init__(array_dict, keep_input, copy=copy)


class Sharing(ParametersRecord):
    """Hands out its own memory, to be written to."""

    def to_numpy_ndarrays(self, **options: Any) -> list[np.ndarray]:
        result = super().to_numpy_ndarrays(**options)
        if options == {"keep_input": True, "copy": True}:
            for i, (array, copied) in enumerate(zip(self.values(), result, strict=True)):
                if 0 < copied.nbytes == payload(array)[1]:
                    result[i] = alias(array).view(copied.dtype).reshape(copied.shape)
        return result


class Losing(ParametersRecord):
    """Takes the last entry for the first."""

    def popitem(self) -> tuple[str, Array]:
        key = next(reversed(self), "")
        return key, self.pop(key)


class Untying(ParametersRecord):
    """Copies one value after the other."""

    def __init__(self, array_dict: Any = None, keep_input: bool = False, *, copy: bool | None = None) -> None:
        super().__init__(array_dict, keep_input, copy=copy)
        if copy is True:
            for key, array in self.items():
                self[key] = array.__deepcopy__({})


@pytest.mark.parametrize(
    "broken, found",
    [
        (Borrowing, "may write to the memory of|borrowed though nobody said so"),
        (Sharing, "may write to the memory of"),
        (Losing, "popitem took another entry"),
        (Untying, "were tied and are not|a tie is lost"),
    ],
)
def test_a_broken_record_is_found(broken, found):
    class Broken(Records):
        record_classes = (broken,)

    # The first failure will do: to make it smaller takes time.
    with pytest.raises(AssertionError, match=found):
        run_state_machine_as_test(Broken, settings=settings(bounded(1000), max_examples=1000, derandomize=True, phases=[Phase.generate]))


@pytest.fixture
def machine():
    machine = Records()
    first, second = np.arange(6.0), np.ones(3)
    record, held = ParametersRecord({"a": first, "b": second}, keep_input=True), Array(second)
    machine.add(record, {"a": expected(first), "b": expected(second)})
    machine.hold_array(held, expected(second))
    machine.hold(first, machine.family())
    machine.hold(record["a"].numpy(), 0)
    check_all(machine)
    yield machine
    machine.teardown()


def check_all(machine: Records) -> None:
    machine.nobody_writes_to_what_is_anothers()
    machine.everything_is_as_it_should_be()


def test_another_owner_of_an_entry_is_found(machine):
    machine.hold(alias(machine.records[0][0]["b"])[:1], machine.family())
    with pytest.raises(AssertionError, match="handle 2 may write to the memory of 'b' of record 0"):
        check_all(machine)


def test_another_owner_of_an_array_is_found(machine):
    machine.hold(alias(machine.arrays[0][0])[-1:], machine.family())
    with pytest.raises(AssertionError, match="handle 2 may write to the memory of array 0"):
        check_all(machine)


def test_two_owners_outside_of_any_record_are_found(machine):
    machine.hold(machine.handles[0].thing[2:], machine.handles[0].family)
    check_all(machine)  # of one family
    machine.hold(machine.handles[0].thing[2:], machine.family())
    with pytest.raises(AssertionError, match="may write to the memory of handle"):
        check_all(machine)


def test_what_changes_behind_a_records_back_is_found(machine):
    alias(machine.records[0][0]["b"])[-1] = 1
    with pytest.raises(AssertionError, match="b holds something else"):
        check_all(machine)


def test_what_changes_behind_the_callers_back_is_found(machine):
    machine.handles[0].thing[0] = 5
    with pytest.raises(AssertionError, match="handle 0 shows something else"):
        check_all(machine)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("a"),
        lambda record: record.update(c=record["a"]),
        lambda record: record.update(a=record.pop("a")),
    ],
)
def test_an_entry_that_is_lost_or_new_or_elsewhere_is_found(machine, change):
    change(machine.records[0][0])
    with pytest.raises(AssertionError, match="the keys are others"):
        check_all(machine)


def test_a_way_around_a_read_only_view_is_found():
    array = np.arange(3.0)
    view = array[:]
    view.flags.writeable = False
    for wrong in (array, view, memoryview(array), np.asarray(memoryview(array).toreadonly())):
        with pytest.raises(AssertionError, match=r"a writable .* is below a read-only view"):
            check_read_only(wrong)
    check_read_only(Array(array).numpy())
