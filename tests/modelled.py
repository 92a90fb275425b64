"""What records, Arrays and their caller have, beside a model of what each has to hold, and what has to be so at any time.

The model has copies of its own, so that a change behind a record's back shows up. And of all who can reach some memory, no two may
write to it, nor may one write to what is a record's, but by the caller's word: tied arrays, views that he has made
himself, and what he has lent with ``copy=False``. Such belong to one family.
"""

import ctypes
import tempfile
import types
import weakref
from collections import OrderedDict, UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from aliasing import Owner, check, payload, shown, span
from arrays import ALL_DTYPES
from hypothesis.stateful import RuleBasedStateMachine, invariant
from recipes import (
    EXPORTERS,
    KINDS,
    NOTHING_KEPT,
    WRONG,
    Expected,
    Recipe,
    expected,
    kept,
    made,
    of_fields,
    on_exporter,
    part_of,
    scribble,
    subclassed,
)

from flatrecord import Array, ArrayRecord, ParametersRecord

MOST_RECORDS = 3
MOST_HANDLES = 12
READERS = 0  # the family of those who show a record's own memory, to which nobody may write


@dataclass(eq=False)
class Handle:
    """Something of the caller's by which he reaches memory."""

    thing: Any
    family: int | None
    writes: bool
    content: bytes  # that it has to show


@dataclass(eq=False)
class Item:
    """What the caller knows of a value that he puts into a container; not the value itself."""

    expected: Expected | None  # None if it is no value
    family: int | None
    is_array: bool
    is_flat: bool  # needs no copy
    place: tuple[int, int]  # its first and last address


def one_of(
    places: list[int], number: int, earlier: list[Any], items: list[Item], part_of: Callable[[Any, int], Any] | None
) -> tuple[Any, int | None]:
    """The value at one of some places among those that were made before, or a view on part of it; and its family."""
    place = places[number % len(places)]
    value = earlier[place]
    return (value if part_of is None else part_of(value, number // 7)), items[place].family


class Failing(UserDict):
    """A mapping whose n-th deletion raises, having done its work or not."""

    left = 1

    def __delitem__(self, key: Any) -> None:
        self.left -= 1
        if self.left % 2:
            super().__delitem__(key)
        if self.left <= 0:
            self.left = 1 << 30
            raise RuntimeError("this one not")
        if not self.left % 2:
            super().__delitem__(key)


class Model(RuleBasedStateMachine):
    """Records beside OrderedDicts of what they have to hold; nothing is done to them here."""

    kinds = KINDS
    record_classes: tuple[type[ParametersRecord], ...] = (ParametersRecord, ArrayRecord)
    array_class: type[Array] = Array
    duplicates_arrays = True  # keep_input=True does

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[ParametersRecord, OrderedDict[str, Expected]]] = []
        self.arrays: list[tuple[Array, Expected]] = []
        self.handles: list[Handle] = []
        self.weak: list[tuple[weakref.ref[Any], int]] = []
        self.live: list[tuple[Any, OrderedDict[str, Expected]]] = []
        self.families = 0
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        self.folder.cleanup()

    # -------------------------------------------------------------------------------- what has to hold at any time

    @invariant()
    def nobody_writes_to_what_is_anothers(self) -> None:
        owners = [Owner(f"handle {i}", *span(h.thing), h.writes, h.family) for i, h in enumerate(self.handles)]
        for i, (record, model) in enumerate(self.records):
            for key, array in record.items():
                start, nbytes = payload(array)
                family = model[key].family if key in model else None
                owners.append(Owner(f"{key!r} of record {i}", start, start + nbytes, False, family))
        for i, (array, wanted) in enumerate(self.arrays):
            start, nbytes = payload(array)
            owners.append(Owner(f"array {i}", start, start + nbytes, False, wanted.family))
        check(owners)

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        for record, model in self.records:
            assert list(record) == list(model), "the keys are others"
            for key, wanted in model.items():
                self.check_array(record[key], wanted, key)
            assert len(record) == len(model)
            assert record.count_bytes() == sum(len(wanted.data) + len(key) for key, wanted in model.items())
            self.check_memory(record)
        for i, (array, wanted) in enumerate(self.arrays):
            self.check_array(array, wanted, f"array {i}")
        for i, handle in enumerate(self.handles):
            assert shown(handle.thing).tobytes() == handle.content, f"handle {i} shows something else"

    @invariant()
    def views_are_live(self) -> None:
        for view, model in self.live:
            assert len(view) == len(model)

    def check_array(self, array: Array, wanted: Expected, name: str) -> None:
        assert type(array) is self.array_class
        assert (array.dtype, tuple(array.shape), array.stype) == (wanted.dtype, wanted.shape, wanted.stype), name
        assert array.nbytes == len(wanted.data), name
        address, nbytes = payload(array)
        assert wanted.data.endswith(ctypes.string_at(address, nbytes)), f"{name} holds something else"
        assert array.ownership != "borrowed" or wanted.family is not None, f"{name} was borrowed though nobody said so"

    def check_memory(self, record: ParametersRecord) -> None:
        places = [(*payload(array), key) for key, array in record.items()]
        groups: list[list[str]] = []
        total = reached = 0
        for start, nbytes, key in sorted(places):
            if nbytes == 0:
                continue
            if start >= reached:
                groups.append([])
            groups[-1].append(key)
            total += max(0, start + nbytes - max(start, reached))
            reached = max(reached, start + nbytes)
        order = list(record)
        found = sorted((sorted(group, key=order.index) for group in groups if len(group) > 1), key=lambda group: order.index(group[0]))
        assert record.ties() == list(map(tuple, found))
        taken = any(array.ownership == "taken" for array in record.values())
        assert record.count_memory() >= total if taken else record.count_memory() == total

    # ---------------------------------------------------------------------------------------------- what is there

    def family(self) -> int:
        self.families += 1
        return self.families

    def hold(self, thing: Any, family: int | None, writes: bool | None = None) -> None:
        """Keep something by which the caller reaches memory."""
        if isinstance(thing, weakref.ref):
            self.weak.append((thing, family))
            return
        array = shown(thing)
        self.handles.append(Handle(thing, family, array.flags.writeable if writes is None else writes, array.tobytes()))
        if len(self.handles) > MOST_HANDLES:
            del self.handles[0]

    def add(self, record: ParametersRecord, model: OrderedDict[str, Expected]) -> None:
        self.records.append((record, model))
        if len(self.records) > MOST_RECORDS:
            del self.records[0]

    def hold_array(self, array: Array, wanted: Expected) -> None:
        self.arrays.append((array, wanted))
        if len(self.arrays) > MOST_HANDLES:
            del self.arrays[0]

    def some_class(self, number: int) -> type[ParametersRecord]:
        return self.record_classes[number % len(self.record_classes)]

    def chosen(self, number: int) -> tuple[ParametersRecord, OrderedDict[str, Expected]]:
        if not self.records:
            self.add(self.some_class(number)(), OrderedDict())
        return self.records[number % len(self.records)]

    def some_array(self, number: int, of_record: bool) -> tuple[Array, Expected]:
        """An Array that others have, too."""
        if of_record and self.records:
            record, model = self.records[number % len(self.records)]
            if model:
                key = list(model)[number // 3 % len(model)]
                return record[key], model[key]
        if not self.arrays:
            thing = made(np.dtype("f4"), "c_order", number)
            self.hold_array(self.array_class(thing), expected(thing))
        return self.arrays[number % len(self.arrays)]

    # ------------------------------------------------------------------------------------------------ making values

    def ndarray(self, recipe: Recipe, earlier: list[Any], items: list[Item]) -> tuple[Any, int]:
        """A value as the recipe says, and its family."""
        dtype, number, family = ALL_DTYPES[recipe.dtype], recipe.number, self.family()
        usable = [i for i, item in enumerate(items) if item.family is not None and isinstance(earlier[i], np.ndarray)]
        if recipe.kind in ("again", "part") and usable:
            return one_of(usable, number, earlier, items, part_of if recipe.kind == "part" else None)
        if recipe.kind == "held":
            usable = [i for i, h in enumerate(self.handles) if isinstance(h.thing, (np.ndarray, memoryview))]
            if usable:
                handle = self.handles[usable[number % len(usable)]]
                if recipe.keep == NOTHING_KEPT:
                    self.handles.remove(handle)
                return np.asarray(handle.thing), handle.family
        if recipe.kind == "exporter" and dtype.itemsize:
            keep: list[Any] = []
            array = on_exporter(EXPORTERS[number % len(EXPORTERS)], dtype, number, None if recipe.keep == NOTHING_KEPT else keep)
            for thing in keep:
                self.hold(thing, family)
            return array, family
        if recipe.kind == "large":
            array = np.zeros((1 << 20) + number, "u1")
            scribble(array[:100], number)
        else:
            array = made(dtype, recipe.layout, number)
        if recipe.kind == "read-only" and number % 2:
            array.flags.writeable = False
        thing = kept(array, recipe.keep)
        if thing is not None:
            self.hold(thing, family)
        if recipe.kind == "read-only":
            array = array[...]
            array.flags.writeable = False
        if recipe.kind == "subclass":
            array = subclassed(array, number)
        return array, family

    def value(self, recipe: Recipe, earlier: list[Any], items: list[Item]) -> tuple[Any, Item]:
        """A value as the recipe says, to which this machine keeps no reference that the recipe does not ask for."""
        number = recipe.number
        if recipe.kind == "wrong":
            return WRONG[number % len(WRONG)], Item(None, None, False, False, (0, 0))
        if recipe.kind in ("array of a record", "held array"):
            array, wanted = self.some_array(number, recipe.kind == "array of a record")
            return array, Item(wanted, wanted.family, True, True, (0, 0))
        if recipe.kind in ("new array", "array of bytes", "foreign array"):
            source = made(ALL_DTYPES[recipe.dtype], recipe.layout, number)
            wanted = expected(source)
            if recipe.kind == "foreign array":
                wanted = Expected("float32", (1,), "torch", number.to_bytes(4, "little"))
            array = self.array_class(source) if recipe.kind == "new array" else of_fields(wanted, cls=self.array_class)
            return array, Item(wanted, None, True, True, (0, 0))
        thing, family = self.ndarray(recipe, earlier, items)
        wanted = expected(np.asarray(thing))
        flat = thing.flags.c_contiguous or thing.flags.f_contiguous
        return thing, Item(wanted, family, False, flat, span(thing))

    def source(self, values: list[tuple[str, Recipe]], container: str, number: int) -> tuple[Any, OrderedDict[Any, Item]]:
        """A container of values, and what the caller knows of each."""
        things: OrderedDict[Any, Any] = OrderedDict()
        items: OrderedDict[Any, Item] = OrderedDict()
        for place, (key, recipe) in enumerate(values):
            key = place if container == "list" else key
            things[key], items[key] = self.value(recipe, list(things.values()), list(items.values()))
        if container == "list":
            return list(things.values()), items
        if container == "failing":
            failing = Failing(things)
            failing.left = 1 + number % (len(things) + 1)
            return failing, items
        if container == "read-only":
            return types.MappingProxyType(dict(things)), items
        return {"dict": dict, "OrderedDict": OrderedDict, "UserDict": UserDict}[container](things), items
