"""Everything that one can do with records, in random sequences, beside a model of what has to come of it."""

import copy
import ctypes
import gc
import io
import os
import pickle
from collections import OrderedDict, UserDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from aliasing import check_read_only, payload, shown, span
from arrays import ALL_DTYPES
from exhaustive import EXHAUSTIVE
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import initialize, precondition, rule
from modelled import READERS, Item, Model
from recipes import (
    KEYS,
    NOTHING_KEPT,
    WRONG,
    WRONG_KEYS,
    Expected,
    Odd,
    Recipe,
    elements,
    expected,
    made,
    of_fields,
    recipes,
    scribble,
)

from flatrecord import Array, ParametersRecord
from flatrecord.dtypes import SAFETENSORS

COPIES = st.sampled_from([None, None, True, False])
NUMBERS = st.integers(0, 99)
CONTAINERS = ["dict", "dict", "dict", "OrderedDict", "UserDict", "list", "failing", "read-only"]


def bounded(examples: int) -> settings:
    """The same sequences each time; 20,000 new ones for `make exhaustive`."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        examples //= 8  # each of which takes as much longer
    return settings(
        max_examples=20_000 if EXHAUSTIVE else examples,
        stateful_step_count=40,
        deadline=None,
        derandomize=not EXHAUSTIVE,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


class Records(Model):
    """Every operation of a record, those that fail among them."""

    # ---------------------------------------------------------------------------------------------- into a record

    @initialize(values=st.lists(st.tuples(KEYS, recipes), min_size=1, max_size=4), keep_input=st.booleans(), copy=COPIES, number=NUMBERS)
    def construct_the_first(self, values: list[Any], keep_input: bool, copy: bool | None, number: int) -> None:
        source, items = self.source(values, "dict", number)
        self.put_in(self.some_class(number), source, items, "dict", keep_input, copy, number)

    @rule(
        values=st.lists(st.tuples(KEYS, recipes), max_size=6),
        container=st.sampled_from(CONTAINERS),
        keep_input=st.booleans(),
        copy=COPIES,
        number=NUMBERS,
        odd=st.sampled_from([None, None, None, None, "wrong key", "odd key"]),
    )
    def construct(self, values: list[Any], container: str, keep_input: bool, copy: bool | None, number: int, odd: str | None) -> None:
        source, items = self.source(values, container, number)
        if odd is not None and items and container in ("dict", "OrderedDict", "UserDict"):
            key = next(iter(items))
            other: Any = Odd(key) if odd == "odd key" else 1.5
            source[other], items[other] = source[key], items[key]
            if number % 2:
                del source[key], items[key]
        self.put_in(self.some_class(number), source, items, container, keep_input, copy, number)

    def put_in(
        self, make: Any, source: Any, items: OrderedDict[Any, Item], container: str, keep_input: bool, copy: bool | None, number: int
    ) -> None:
        names = list(map(str, items))
        wrong = (
            any(item.expected is None for item in items.values())
            or (copy is False and not all(item.is_flat for item in items.values()))
            or (container == "read-only" and not keep_input)
            or any(isinstance(key, float) for key in items)
            or len(set(names)) < len(names)
        )
        fails = container == "failing" and not keep_input and source.left <= len(items)
        before = identities(source)
        try:
            record = make(source, keep_input=keep_input, copy=copy)
        except (TypeError, ValueError, RuntimeError) as error:
            del error
            assert wrong or fails, "it should have worked"
            if wrong:
                assert identities(source) == before, "the input is not as it was"
            else:
                self.check_put_back(source, items, before)
            return
        assert not wrong and not fails, "it should not have worked"
        model = OrderedDict()
        for name, item, array in zip(names, items.values(), record.values(), strict=True):
            shared = item.is_array and (copy is False or (copy is None and not (keep_input and self.duplicates_arrays)))
            borrowed = copy is False and array.ownership == "borrowed"
            model[name] = replace(item.expected, family=item.family if shared or borrowed else None)
            assert shared or copy is not True or array.ownership in ("snapshot", "taken")  # the latter of a conversion
        array = None
        assert list(record) == names
        self.check_ties(list(items.values()), list(record.values()), "the record")
        if keep_input:
            assert identities(source) == before, "the input is not as it was"
            if number % 3 == 0:
                for key, item in items.items():
                    if not item.is_array:
                        self.hold(source[key], item.family)
        else:
            assert len(source) == 0
        self.add(record, model)

    def check_put_back(self, source: Any, items: OrderedDict[Any, Item], before: list[Any]) -> None:
        """After a failure in the middle, everything is back in the old order: itself, or an equal copy of what nobody held."""
        assert list(source) == [key for key, _ in before]
        for key, item in items.items():
            thing = source[key]
            if isinstance(thing, Array):
                assert item.is_array
                self.check_array(thing, item.expected, key)
            else:
                assert self.expected_of(thing) == replace(item.expected, family=None, kind=None)

    def check_ties(self, items: list[Item], arrays: list[Array], where: str) -> None:
        """What shared memory before has to share it now, each as far from the other as it was."""
        for i, one in enumerate(items):
            for j, two in enumerate(items[:i]):
                if one.is_array or two.is_array or one.expected.kind != two.expected.kind or one.family != two.family:
                    continue
                if not (one.is_flat and two.is_flat and overlap(one.place, two.place)):
                    continue
                apart = payload(arrays[i])[0] - payload(arrays[j])[0]
                assert apart == one.place[0] - two.place[0], f"entries {j} and {i} were tied and are not in {where}"

    @rule(number=NUMBERS, keep_input=st.booleans(), copy=COPIES)
    def construct_from_a_record(self, number: int, keep_input: bool, copy: bool | None) -> None:
        source, model = self.chosen(number)
        items = OrderedDict((key, Item(wanted, wanted.family, True, True, (0, 0))) for key, wanted in model.items())
        apart = {key: payload(source[key]) for key in model}
        if not keep_input:
            model.clear()
        self.put_in(self.some_class(number), source, items, "record", keep_input, copy, number // 7)
        record = self.records[-1][0]
        for one in items:
            for two in items:
                if overlap(*(sized(*apart[key]) for key in (one, two))):
                    assert payload(record[one])[0] - payload(record[two])[0] == apart[one][0] - apart[two][0], "a tie is lost"

    @rule(values=st.lists(recipes, max_size=4), keep_input=st.booleans(), copy=COPIES, number=NUMBERS)
    def from_numpy_ndarrays(self, values: list[Recipe], keep_input: bool, copy: bool | None, number: int) -> None:
        values = [recipe._replace(kind="fresh") if "array" in recipe.kind or recipe.kind == "wrong" else recipe for recipe in values]
        source, items = self.source([("", recipe) for recipe in values], "list", number)
        self.put_in(self.some_class(number).from_numpy_ndarrays, source, items, "list", keep_input, copy, number)

    # -------------------------------------------------------------------------------------------- one Array at a time

    @rule(recipe=recipes, copy=COPIES)
    def make_an_array(self, recipe: Recipe, copy: bool | None) -> None:
        thing, item = self.value(recipe, [], [])
        if item.is_array:
            self.hold_array(thing, item.expected)
            return
        try:
            array = self.array_class(thing, copy=copy)
        except (TypeError, ValueError):
            assert item.expected is None or (copy is False and not item.is_flat)
            return
        assert item.expected is not None
        assert copy is not True or array.ownership in ("snapshot", "taken")
        self.hold_array(array, replace(item.expected, family=item.family if array.ownership == "borrowed" else None))
        assert copy is False or array.ownership != "borrowed"

    @rule(recipe=recipes, copy=COPIES, number=NUMBERS)
    def make_an_array_of_fields(self, recipe: Recipe, copy: bool | None, number: int) -> None:
        wanted = expected(made(ALL_DTYPES[recipe.dtype], recipe.layout, number))
        family = self.family()
        data: Any = bytes(wanted.data) if number % 2 else bytearray(wanted.data)
        data = memoryview(data) if number % 3 else data
        array = of_fields(wanted, data, copy, self.array_class)
        if recipe.keep != NOTHING_KEPT and number % 2 == 0:
            self.hold(memoryview(data)[len(wanted.data) - len(elements(wanted)) :], family)  # not the header
        assert array.ownership != "borrowed" or copy is False
        self.hold_array(array, replace(wanted, family=family if array.ownership == "borrowed" else None))

    @rule(number=NUMBERS)
    def hold_an_array_of_a_record(self, number: int) -> None:
        self.hold_array(*self.some_array(number, True))

    @precondition(lambda self: self.arrays)
    @rule(number=NUMBERS)
    def let_go_of_an_array(self, number: int) -> None:
        del self.arrays[number % len(self.arrays)]

    @rule(number=NUMBERS, how=st.sampled_from(["numpy", "asarray", "memoryview", "segments", "chunks", "copy"]), record=st.booleans())
    def view_an_array(self, number: int, how: str, record: bool) -> None:
        array, wanted = self.some_array(number, record)
        if not wanted.readable and how not in ("segments", "chunks"):
            return
        if how == "copy":
            copied = array.numpy(copy=True)
            assert copied.tobytes() == elements(wanted) and copied.dtype == array.numpy(copy=False).dtype
            self.hold(copied, self.family())
            return
        if how == "memoryview":
            try:
                view: Any = memoryview(array)
            except BufferError:
                return
        elif how == "segments":
            view = array.segments()[1]
        elif how == "chunks":
            view = [*array.chunks(max(1, array.nbytes))][-1]
        else:
            view = array.numpy(copy=False) if how == "numpy" else np.asarray(array)
        del array
        check_read_only(view)
        if how in ("numpy", "asarray"):
            assert view.tobytes() == elements(wanted)
            self.check_cannot_be_made_writable(view)
        self.hold(view, wanted.family or READERS, False)

    def check_cannot_be_made_writable(self, view: np.ndarray) -> None:
        try:
            view.flags.writeable = True
        except ValueError:
            return
        assert view.nbytes == 0, "a read-only view let itself be made writable"
        view.flags.writeable = False

    @rule(number=NUMBERS, record=st.booleans())
    def read_an_array(self, number: int, record: bool) -> None:
        array, wanted = self.some_array(number, record)
        assert array.data == wanted.data
        assert array == of_fields(wanted, cls=self.array_class)
        assert array != of_fields(wanted, wanted.data + b"\0", cls=self.array_class)
        assert repr(array.dtype) in repr(array)
        assert b"".join(array.chunks(7)) == wanted.data

    # --------------------------------------------------------------------------------------------- the caller's memory

    @precondition(lambda self: any(handle.writes for handle in self.handles))
    @rule(number=NUMBERS)
    def write(self, number: int) -> None:
        """Write to something that the caller has; whatever is not of its family must not change."""
        writable = [handle for handle in self.handles if handle.writes]
        handle = writable[number % len(writable)]
        scribble(handle.thing, number)
        place = span(handle.thing)
        for other in self.handles:
            if other is handle or (other.family == handle.family and overlap(span(other.thing), place)):
                other.content = shown(other.thing).tobytes()
        self.arrays = [(array, seen_through(array, wanted, handle.family)) for array, wanted in self.arrays]
        for record, model in self.records:
            for key, wanted in model.items():
                model[key] = seen_through(record[key], wanted, handle.family)

    @precondition(lambda self: self.handles)
    @rule(number=NUMBERS)
    def let_go_of_a_handle(self, number: int) -> None:
        del self.handles[number % len(self.handles)]

    @precondition(lambda self: self.weak)
    @rule(number=NUMBERS)
    def bring_back(self, number: int) -> None:
        reference, family = self.weak.pop(number % len(self.weak))
        thing = reference()
        if thing is not None:
            self.hold(thing, family)

    @rule()
    def collect(self) -> None:
        gc.collect(0)

    # --------------------------------------------------------------------------------------------- the mapping

    @rule(number=NUMBERS, key=KEYS, of_record=st.booleans(), how=st.sampled_from(["set", "setdefault", "update", "update with pairs"]))
    def set_an_entry(self, number: int, key: str, of_record: bool, how: str) -> None:
        array, wanted = self.some_array(number // 5, of_record)
        record, model = self.chosen(number)
        name = str(key)
        if how == "set":
            record[key] = array
        elif how == "setdefault":
            present = record.get(key)
            assert record.setdefault(key, array) is (array if present is None else present)
            wanted = model.setdefault(name, wanted)
        elif how == "update":
            record.update({key: array})
        else:
            record.update([(key, array), ("and another", array)])
            model[name] = wanted
            name = "and another"
        model[name] = wanted

    @rule(number=NUMBERS, other=NUMBERS)
    def update_from_a_record(self, number: int, other: int) -> None:
        record, model = self.chosen(number)
        source, added = self.chosen(other)
        record.update(source)
        model.update(added)

    @rule(number=NUMBERS, key=WRONG_KEYS, value=st.sampled_from(WRONG), key_is_wrong=st.booleans())
    def set_what_is_wrong(self, number: int, key: Any, value: Any, key_is_wrong: bool) -> None:
        record, _ = self.chosen(number)
        array, _ = self.some_array(number, True)
        place, given = (key, array) if key_is_wrong else ("new", value)
        for change in (
            lambda: record.__setitem__(place, given),
            lambda: record.setdefault(place, given),
            lambda: record.update({"first": array, place: given}),
            lambda: record.update([("first", array), (place, given)]),
            lambda: record.update([("first", array), given]),
        ):
            if place not in record:
                raises((TypeError, ValueError), change)

    @rule(number=NUMBERS, key=KEYS, how=st.sampled_from(["del", "pop", "pop with default", "popitem", "get", "in"]))
    def take_an_entry(self, number: int, key: str, how: str) -> None:
        record, model = self.chosen(number)
        if number % 4 and model:
            key = list(model)[number // 4 % len(model)]
        if how in ("get", "in"):
            assert (key in record) is (key in model)
            assert record.get(key, 1) is (record[key] if key in model else 1)
        elif how == "popitem" and model:
            found, array = record.popitem()
            first, wanted = model.popitem(last=False)
            assert found == first and type(found) is str, "popitem took another entry than the first"
            self.check_array(array, wanted, found)
        elif key in model:
            if how == "del":
                del record[key]
                del model[key]
            else:
                array, wanted = record.pop(key), model.pop(key)
                self.check_array(array, wanted, key)
                if number % 2:
                    self.hold_array(array, wanted)
        else:
            raises(KeyError, lambda: record[key], lambda: record.pop(key), lambda: record.__delitem__(key))
            if not model:
                raises(KeyError, record.popitem)
            assert record.pop(key, None) is None and record.get(key) is None

    @rule(number=NUMBERS)
    def clear(self, number: int) -> None:
        record, model = self.chosen(number)
        if number % 4 == 0:
            record.clear()
            model.clear()

    @rule(number=NUMBERS)
    def iterate(self, number: int) -> None:
        record, model = self.chosen(number)
        assert list(record.keys()) == list(iter(record)) == list(model)
        assert list(reversed(record)) == list(reversed(model))
        assert [key for key, _ in record.items()] == list(model) and len(record.values()) == len(model)
        assert record.keys() == model.keys() and all(item in record.items() for item in record.items())
        self.live = [*self.live[-2:], ((record.keys, record.values, record.items)[number % 3](), model)]
        if model:
            iterator = iter(record)
            next(iterator)
            record["grown"] = record[next(iter(model))]
            if "grown" not in model:
                raises(RuntimeError, lambda: next(iterator))
            model["grown"] = model[next(iter(model))]

    @rule(number=NUMBERS)
    def compare(self, number: int) -> None:
        record, model = self.chosen(number)
        equal: dict[str, Array] = {key: of_fields(wanted, cls=self.array_class) for key, wanted in reversed(model.items())}
        alike = self.record_classes[0]()
        alike.update(equal)
        for other in (equal, alike, OrderedDict(equal), UserDict(equal), record):
            assert record == other and other == record
        assert not (record != equal)  # noqa: SIM202 (which is __eq__)
        if model:
            key = list(model)[number % len(model)]
            equal[key] = of_fields(replace(model[key], stype="other"), cls=self.array_class)
            assert record != equal and equal != record
            del equal[key]
            assert record != equal
        assert record != list(equal) and record != 1
        assert repr(record).startswith(type(record).__name__)

    # ---------------------------------------------------------------------------------------------- further records

    @rule(number=NUMBERS, how=st.sampled_from(["copy", "copy.copy", "deepcopy"]))
    def copy_a_record(self, number: int, how: str) -> None:
        record, model = self.chosen(number)
        if how == "deepcopy":
            other = copy.deepcopy(record)
            self.add(other, OrderedDict((key, replace(wanted, family=None)) for key, wanted in model.items()))
        else:
            other = record.copy() if how == "copy" else copy.copy(record)
            assert all(array is record[key] for key, array in other.items())
            self.add(other, model.copy())
        assert type(other) is type(record)

    @rule(number=NUMBERS, protocol=st.integers(2, pickle.HIGHEST_PROTOCOL), out_of_band=st.booleans(), writable=st.booleans())
    def pickle_a_record(self, number: int, protocol: int, out_of_band: bool, writable: bool) -> None:
        record, model = self.chosen(number)
        families = dict.fromkeys(model)
        if out_of_band and protocol >= 5:
            views: list[pickle.PickleBuffer] = []
            data = pickle.dumps(record, protocol, buffer_callback=views.append)
            buffers: list[Any] = [bytearray(view.raw()) if writable else bytes(view.raw()) for view in views]
            del views
            other = pickle.loads(data, buffers=buffers)
            family = self.family()
            for buffer in buffers:
                if writable and number % 2:
                    self.hold(memoryview(buffer), family)
            families = {key: family if other[key].ownership == "borrowed" else None for key in model}
        else:
            other = pickle.loads(pickle.dumps(record, protocol))
        assert type(other) is type(record)
        self.add(other, OrderedDict((key, replace(wanted, family=families[key])) for key, wanted in model.items()))

    @rule(
        number=NUMBERS,
        how=st.sampled_from(["mapped", "read", "stream"]),
        keep_input=st.booleans(),
        checksum=st.booleans(),
    )
    def save_and_load(self, number: int, how: str, keep_input: bool, checksum: bool) -> None:
        record, model = self.chosen(number)
        path = Path(self.folder.name, "record")
        wrong = any(not encodable(key) or key == "__metadata__" for key in model)
        stream = io.BytesIO()
        try:
            if how == "stream":
                record.write(stream, keep_input=keep_input)
            else:
                record.save(path, keep_input=keep_input, checksum=checksum)
        except (TypeError, ValueError):
            assert wrong, "it should have worked"
            return
        assert not wrong
        kept = model.copy()
        if not keep_input:
            model.clear()
        stream.seek(0)
        loaded = type(record).read(stream) if how == "stream" else type(record).load(path, mmap=how == "mapped")
        if how != "stream":
            loaded.verify(contents=checksum)
        self.add(loaded, OrderedDict((key, as_in_a_file(wanted)) for key, wanted in kept.items()))

    @precondition(lambda self: self.records)
    @rule(number=NUMBERS)
    def let_go_of_a_record(self, number: int) -> None:
        del self.records[number % len(self.records)]

    # ------------------------------------------------------------------------------------------- out of a record

    def out_copies(self, copy: bool | None) -> bool:
        """Whether what comes out is independent of a record that keeps its entries."""
        return copy is True

    def read_out(self, record: ParametersRecord, keep_input: bool, copy: bool | None) -> dict[str, Any]:
        names = list(record)
        return dict(zip(names, record.to_numpy_ndarrays(keep_input=keep_input, copy=copy), strict=True))

    @rule(number=NUMBERS, keep_input=st.booleans(), copy=COPIES, keep=st.integers(0, 63))
    def come_out(self, number: int, keep_input: bool, copy: bool | None, keep: int) -> None:
        self.bring_out(lambda wanted: wanted.readable, self.read_out, number, keep_input, copy, keep)

    def bring_out(self, can_come_out: Any, read_out: Any, number: int, keep_input: bool, copy: bool | None, keep: int) -> None:
        record, model = self.chosen(number)
        wrong = not all(map(can_come_out, model.values()))
        places = {key: elements_of(record[key], wanted) for key, wanted in model.items() if wanted.readable}
        addresses = {key: payload(array) for key, array in record.items()}
        try:
            found = read_out(record, keep_input, copy)
        except (TypeError, ValueError):
            assert wrong or (copy is False and not keep_input), "it should have worked"
            assert {key: payload(array) for key, array in record.items()} == addresses, "the record is not as it was"
            return
        assert not wrong, "it should not have worked"
        assert list(found) == list(model)
        if keep_input and not self.out_copies(copy):
            for key, thing in found.items():
                self.check_out(thing, model[key])
                if isinstance(thing, np.ndarray):
                    check_read_only(thing)
                if keep >> list(found).index(key) % 6 & 1:
                    self.hold(thing, model[key].family or READERS, False)
            return
        families = self.families_of(places)
        out = list(found)
        for one in out:
            for two in out:
                if model[one].kind == model[two].kind and overlap(places[one], places[two]):
                    now = span(found[one])[0] - span(found[two])[0]
                    assert now == places[one][0] - places[two][0], f"{one!r} and {two!r} were tied and are not any more"
        for i, (key, thing) in enumerate(found.items()):
            self.check_out(thing, model[key])
            assert shown(thing).flags.writeable
            lent = copy is False and not keep_input and model[key].family is not None
            family = model[key].family if lent else families[key]
            if keep >> i % 6 & 1:
                self.hold(thing, family)
        if not keep_input:
            model.clear()
            assert len(record) == 0

    def expected_of(self, thing: Any) -> Expected:
        return expected(np.asarray(thing))

    def check_out(self, thing: Any, wanted: Expected) -> None:
        assert np.asarray(thing).tobytes() == elements(wanted)
        assert str(thing.dtype) == wanted.dtype and thing.shape == wanted.shape

    def families_of(self, places: dict[str, tuple[int, int]]) -> dict[str, int]:
        """One family for all that come out with shared memory."""
        families: dict[str, int] = {}
        reached, family = 0, 0
        for key, (start, end) in sorted(places.items(), key=lambda item: item[1]):
            if start >= reached or start == end:
                family = self.family()
            families[key] = family
            reached = max(reached, end)
        return families


def identities(source: Any) -> list[tuple[Any, int]]:
    """The keys and values of a container."""
    return list(enumerate(map(id, source))) if isinstance(source, list) else [(key, id(source[key])) for key in source]


def overlap(one: tuple[int, int], two: tuple[int, int]) -> bool:
    return max(one[0], two[0]) < min(one[1], two[1])


def sized(start: int, nbytes: int) -> tuple[int, int]:
    return start, start + nbytes


def elements_of(array: Array, wanted: Expected) -> tuple[int, int]:
    """First and last address of an Array's elements, behind the header if that is in its memory."""
    address, nbytes = payload(array)
    return address + nbytes - len(elements(wanted)), address + nbytes


def seen_through(array: Array, wanted: Expected, family: int | None) -> Expected:
    """What an Array has to be after its family's memory has been written to."""
    if wanted.family is None or wanted.family != family:
        return wanted
    address, nbytes = payload(array)
    return replace(wanted, data=wanted.data[: len(wanted.data) - nbytes] + ctypes.string_at(address, nbytes))


def raises(error: type[Exception] | tuple[type[Exception], ...], *calls: Any) -> None:
    for call in calls:
        try:
            call()
        except error:
            continue
        raise AssertionError(f"there was no {error}")


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_in_a_file(wanted: Expected) -> Expected:
    """What becomes of an Array in a safetensors file: row-major and little-endian, if the format has its dtype."""
    try:
        dtype = np.dtype(wanted.dtype)
    except (TypeError, ValueError, SyntaxError):  # a structure
        dtype = np.dtype("V1")
    if not wanted.readable or str(dtype.newbyteorder("<")) not in SAFETENSORS.values():
        return replace(wanted, family=None)
    array = np.frombuffer(elements(wanted), dtype).reshape(wanted.shape)
    return expected(array.astype(dtype.newbyteorder("<")))
