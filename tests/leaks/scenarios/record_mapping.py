"""A record as a mapping: what goes in and out one by one, live views and iterators that outlive it, changes while they run."""

import gc
import weakref

import numpy as np
from _measuring import refused, report, turn

from flatrecord import Array, ParametersRecord

ARRAYS = {"a": Array(np.arange(3.0)), "b": Array(np.arange(4.0))}


@turn
def one_by_one():
    record = ParametersRecord()
    record["a"] = ARRAYS["a"]
    record["a"] = ARRAYS["b"]
    record.setdefault("a", ARRAYS["a"]), record.setdefault("c", ARRAYS["a"])
    record.update(ARRAYS), record.update([("d", ARRAYS["a"])], e=ARRAYS["b"])
    record.get("a"), record.get("z"), record.get("z", 1), "a" in record, len(record)
    record.pop("a"), record.pop("z", None), record.popitem()
    del record["d"]
    record.clear()


@turn
def asked():
    record = ParametersRecord(ARRAYS, keep_input=True)
    list(record), list(reversed(record)), list(record.items()), record.keys() & {"a"}, record.values()
    assert record == ARRAYS and record != {} and record != 1 and record == record.copy()
    repr(record), record.count_bytes(), record.count_memory(), record.ties()


@turn
def refused_one_by_one():
    record = ParametersRecord(ARRAYS, keep_input=True)
    for work in (
        lambda: record["z"],
        lambda: record.pop("z"),
        lambda: record.__delitem__("z"),
        lambda: ParametersRecord().popitem(),
        lambda: record.verify(),
    ):
        with refused((KeyError, ValueError)):
            work()
    for work in (
        lambda: record.__setitem__(1, ARRAYS["a"]),
        lambda: record.__setitem__("z", 1),
        lambda: record.__setitem__("z", np.arange(3.0)),
        lambda: record.setdefault("z"),
        lambda: record.update([1]),
        lambda: record.update({"z": ARRAYS["a"], 1: 1}),
        lambda: hash(record),
        lambda: record[[]],
    ):
        with refused(TypeError):
            work()
    assert len(record) == 2


@turn
def changed_while_it_is_read():
    record = ParametersRecord(ARRAYS, keep_input=True)
    with refused(RuntimeError, "changed size"):
        for _ in record:
            record.clear()


@turn
def views_and_iterators_that_outlive_it():
    record = ParametersRecord(ARRAYS, keep_input=True)
    views, iterators = [record.keys(), record.values(), record.items()], [iter(record), reversed(record), iter(record.items())]
    next(iterators[0]), next(iterators[2])
    del record
    assert [len(view) for view in views] == [2, 2, 2]
    assert next(iterators[1]) == "b"


class Mine(ParametersRecord):
    pass


@turn
def weakly_referenced():
    record = Mine(ARRAYS, keep_input=True)
    record.note = ["something"]
    gone = weakref.ref(record)
    del record
    assert gone() is None


@turn
def untracked():
    record = ParametersRecord({"a": np.arange(3.0)})
    assert not gc.is_tracked(record["a"])
    record["a"].numpy()


report()
