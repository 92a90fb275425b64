"""Random sequences of operations on Flower's classes on our storage, and the same ones on Flower's own."""

import copy
import gc
import pickle
from typing import Any

import flwr.app
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from recipes import KEYS, WRONG, WRONG_KEYS, made
from stateful import NUMBERS, Records, bounded

import flatrecord
from flatrecord.flower import Array, ArrayRecord, ParametersRecord, from_flower, to_flower


def theirs_of(array: Any) -> flwr.app.Array:
    return flwr.app.Array(array.dtype, tuple(array.shape), array.stype, array.data)


class FlowersRecords(Records):
    """Records of Flower's classes on our storage; each is what Flower's own would be."""

    record_classes = (ArrayRecord, ParametersRecord)
    array_class = Array
    duplicates_arrays = False

    def out_copies(self, copy: bool | None) -> bool:
        return copy is not False

    @rule(number=NUMBERS)
    def is_as_flowers_own(self, number: int) -> None:
        record, model = self.chosen(number)
        theirs = flwr.app.ArrayRecord({key: theirs_of(wanted) for key, wanted in model.items()})
        assert not isinstance(theirs, flatrecord.ArrayRecord)
        assert list(record) == list(theirs) and record.count_bytes() == theirs.count_bytes()
        assert record == dict(theirs) and all(record[key] == array and array == record[key] for key, array in theirs.items())
        for array in record.values():
            array.forget_ids()  # as whoever writes to what he has lent has to say
        assert {key: array.object_id for key, array in record.items()} == {key: array.object_id for key, array in theirs.items()}
        assert record.deflate() == theirs.deflate() and record.object_id == theirs.object_id

    @rule(number=NUMBERS)
    def to_the_cores_classes_and_back(self, number: int) -> None:
        record, model = self.chosen(number)
        core = from_flower(record)
        assert type(core) is flatrecord.ArrayRecord and all(type(array) is flatrecord.Array for array in core.values())
        self.add(to_flower(core), model.copy())


class SideBySide(RuleBasedStateMachine):
    """One record of Flower's own and one of ours, to which the same is done."""

    def __init__(self) -> None:
        super().__init__()
        self.ours: Any = ArrayRecord()
        self.theirs: Any = flwr.app.ArrayRecord()
        gc.freeze()  # Flower's own class collects garbage in each call with keep_input=False, among all that was ever imported

    def teardown(self) -> None:
        gc.unfreeze()

    @invariant()
    def they_are_alike(self) -> None:
        assert list(self.ours) == list(self.theirs) and len(self.ours) == len(self.theirs)
        for key, array in self.theirs.items():
            mine = self.ours[key]
            assert (mine.dtype, mine.shape, mine.stype, mine.data) == (array.dtype, array.shape, array.stype, array.data)
        assert self.ours.count_bytes() == self.theirs.count_bytes()

    def both(self, work: Any) -> None:
        """Do the same to both: with the same result, or the same kind of error."""
        results = []
        for record, array in ((self.ours, Array), (self.theirs, flwr.app.Array)):
            try:
                results.append((None, plain(work(record, array))))
            except Exception as error:
                results.append((type(error), None))
        assert results[0] == results[1]

    @rule(key=st.one_of(KEYS, WRONG_KEYS), number=NUMBERS, value=st.one_of(st.none(), st.sampled_from(WRONG)))
    def set_an_entry(self, key: Any, number: int, value: Any) -> None:
        def given(array: Any) -> Any:
            return array(made(np.dtype("f4"), "c_order", number)) if value is None else value

        change = [
            lambda record, array: record.__setitem__(key, given(array)),
            lambda record, array: record.setdefault(key, given(array)),
            lambda record, array: record.update({key: given(array)}),
            lambda record, array: record.update([(key, given(array))]),
        ]
        self.both(change[number % len(change)])

    @rule(key=st.one_of(KEYS, WRONG_KEYS), number=NUMBERS)
    def take_an_entry(self, key: Any, number: int) -> None:
        if number % 3 and len(self.ours):
            key = list(self.ours)[number % len(self.ours)]
        work = [
            lambda record, array: record[key],
            lambda record, array: record.get(key),
            lambda record, array: key in record,
            lambda record, array: record.pop(key),
            lambda record, array: record.pop(key, None),
            lambda record, array: record.__delitem__(key),
            lambda record, array: record.popitem(),
        ]
        self.both(work[number % len(work)])

    @rule(number=NUMBERS)
    def look_at_all(self, number: int) -> None:
        work = [
            lambda record, array: list(record.items()),
            lambda record, array: list(record.values()),
            lambda record, array: list(reversed(list(record.keys()))),
            lambda record, array: record == record.copy(),
            lambda record, array: record == dict(record),
            lambda record, array: bool(record),
            lambda record, array: record.to_numpy_ndarrays(),
            lambda record, array: record.object_id,
            lambda record, array: record == 1,
        ]
        self.both(work[number % len(work)])

    @rule(number=NUMBERS)
    def exchange(self, number: int) -> None:
        """The record's place is taken by one made of it."""
        if number % 8 == 7:
            self.ours, self.theirs = self.ours.copy(), self.theirs.copy()
        elif number % 8 == 6:
            self.ours, self.theirs = pickle.loads(pickle.dumps(self.ours)), flwr.app.ArrayRecord(dict(self.theirs))
        elif number % 8 == 5:
            self.ours, self.theirs = copy.deepcopy(self.ours), flwr.app.ArrayRecord(dict(self.theirs))
        elif number % 8 == 4:
            ours, theirs = dict(self.ours), dict(self.theirs)
            self.ours, self.theirs = ArrayRecord(ours, keep_input=False), flwr.app.ArrayRecord(theirs, keep_input=False)
            assert len(ours) == len(theirs) == 0
        elif number % 8 == 3:
            self.ours = ArrayRecord(dict(self.theirs))
        elif number == 2:
            self.both(lambda record, array: record.clear())

    @rule(number=NUMBERS, keep_input=st.booleans())
    def out_and_in(self, number: int, keep_input: bool) -> None:
        ours, theirs = [record.to_numpy_ndarrays(keep_input=keep_input) for record in (self.ours, self.theirs)]
        assert plain(ours) == plain(theirs) and all(array.flags.writeable for array in ours)
        self.they_are_alike()
        for array in (*ours, *theirs):
            array[...] = number
        self.they_are_alike()
        again = bool(number % 2)
        self.ours, self.theirs = ArrayRecord(ours, keep_input=again), flwr.app.ArrayRecord(theirs, keep_input=again)
        assert len(ours) == len(theirs)


def plain(result: Any) -> Any:
    """What a result is, whichever of the two classes it comes from."""
    if isinstance(result, flwr.app.Array):
        return result.dtype, result.shape, result.stype, result.data
    if isinstance(result, np.ndarray):
        return result.dtype, result.shape, result.tobytes()
    return type(result)(map(plain, result)) if isinstance(result, (list, tuple)) else result


TestFlowersRecords = FlowersRecords.TestCase
TestFlowersRecords.settings = bounded(150)
TestSideBySide = SideBySide.TestCase
TestSideBySide.settings = bounded(300)
