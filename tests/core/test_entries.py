"""Entries are taken out of a record and come back, while others put in more."""

import importlib.util
import os

import numpy as np
import pytest

from flatrecord import Array, ParametersRecord
from flatrecord._core.entries import pass_out


class Stop(Exception):
    pass


def record_of(names: str) -> ParametersRecord:
    return ParametersRecord({name: np.full(3, ord(name), "u1") for name in names})


def letters(pairs) -> str:
    """The keys, each of which has to be that of its Array."""
    pairs = list(pairs)
    assert all((array.numpy() == ord(name)).all() for name, array in pairs)
    return "".join(name for name, _ in pairs)


def test_they_come_back_before_what_others_have_added():
    record = record_of("dca")

    def work(entries):
        record.update(record_of("bcz"))
        raise Stop

    with pytest.raises(Stop):
        pass_out(record, work, lambda entries: None)
    assert letters(record.items()) == "dcabz"


def test_they_come_back_in_place_where_nobody_has_added_any():
    record = record_of("dca")
    live = record.keys()

    def work(entries):
        assert not record
        raise Stop

    with pytest.raises(Stop):
        pass_out(record, work, lambda entries: None)
    assert letters(record.items()) == "dca" and list(live) == list("dca")


@pytest.mark.skipif(
    "CI" not in os.environ and importlib.util.find_spec("_testcapi") is None,
    reason="this Python came without its own tests' module, which makes allocations fail",
)
# CPython 3.13 says so where it has no memory for the name of what it looks up in sys, and goes on.
@pytest.mark.filterwarnings("ignore:Exception ignored in PySys_GetObject:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("added", ["", "vwxyz"])
def test_without_memory_to_put_them_back_the_error_has_them(added):
    """One allocation fails, whichever: all entries are in the record, or in the error, and none in both."""
    import _testcapi

    told = 0
    for n in range(12):
        record, more = record_of("edcba"), record_of(added)

        def work(entries, record=record, more=more):
            record.update(more)
            raise Stop

        def restore(entries, n=n):
            _testcapi.set_nomemory(n, n + 1)

        try:
            pass_out(record, work, restore)
        except (Stop, MemoryError) as error:
            _testcapi.remove_mem_hooks()
            caught = error
        there, refused = letters(record.items()), letters(getattr(caught, "not_put_back", []))
        assert (there, refused) in [("edcba" + added, ""), (added, "edcba")], n
        if refused:
            told += 1
            assert "see this exception's not_put_back" in caught.__notes__[-1]
    assert told == (1 if added else 0)


def test_a_record_that_changes_while_it_is_shown():
    class Shy(Array):
        def __repr__(self):
            record.pop("b", None)
            return "Shy"

    class Shown(ParametersRecord):
        array_class = Shy

    record = Shown(record_of("abc"))
    assert repr(record) == "Shown({'a': Shy, 'b': Shy, 'c': Shy})" and list(record) == ["a", "c"]
