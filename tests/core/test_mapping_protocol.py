"""CPython's own tests of mappings, run on records."""

import os
import unittest
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flatrecord import Array, ArrayRecord, ParametersRecord

if "CI" in os.environ:
    from test import mapping_tests
else:
    mapping_tests = pytest.importorskip("test.mapping_tests", reason="this Python has come without its own tests")

BASES = mapping_tests.TestHashMappingProtocol.__mro__[:3]  # each goes on where the next one ends
NOT_TEXT = "its keys are objects that cannot be hashed or compared, and those of a record are plain text"
NOT_APPLICABLE = {
    "TestMappingProtocol.test_constructor": "entries by keyword: a record's keywords are its options",
    "TestMappingProtocol.test_fromkeys": "as in Flower, there is no fromkeys: it gives each key None unless told otherwise",
    "TestMappingProtocol.test_setdefault": "the default for the default is None, which is no Array",
    "TestHashMappingProtocol.test_fromkeys": "as above",
    "TestHashMappingProtocol.test_setdefault": f"as above; and {NOT_TEXT}",
    "TestHashMappingProtocol.test_getitem": NOT_TEXT,
    "TestHashMappingProtocol.test_pop": NOT_TEXT,
    "TestHashMappingProtocol.test_eq": NOT_TEXT,
    "TestHashMappingProtocol.test_repr": "a record looks like a call of its class, and no record can be in it",
    "TestHashMappingProtocol.test_repr_deep": "no record can be in a record",
}


class Carrying(Array):
    """An Array that stands for some object, and has its text for content."""


def key_in(key: Any) -> Any:
    """Numbers as texts that look like no other key; anything else as it is."""
    return f"\0{key}" if isinstance(key, int) else key


def key_out(key: str) -> Any:
    return int(key[1:]) if key.startswith("\0") else key


def value_in(value: Any) -> Carrying:
    array = Carrying("str", (), "text", repr(value).encode())
    array.value = value
    return array


def value_out(value: Any) -> Any:
    return value.value if isinstance(value, Carrying) else value


def pair_out(pair: tuple[str, Any]) -> tuple[Any, Any]:
    return key_out(pair[0]), value_out(pair[1])


class Incoming:
    """Anything with ``keys`` and ``__getitem__``, as one with Arrays."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def keys(self) -> Iterator[Any]:
        return map(key_in, self.source.keys())

    def __getitem__(self, key: str) -> Carrying:
        return value_in(self.source[key_out(key)])


class View:
    """One of a record's views, with what is in it translated."""

    def __init__(self, view: Any, translate: Callable[[Any], Any]) -> None:
        self.view, self.translate = view, translate

    def __iter__(self) -> Iterator[Any]:
        return map(self.translate, self.view)

    def __contains__(self, key: Any) -> bool:
        return key_in(key) in self.view


class Translated:
    """A record to which any object is an Array, and a number a key. Does nothing else."""

    def __init__(self, record: ParametersRecord) -> None:
        self.record = record

    def __len__(self) -> int:
        return len(self.record)

    def __iter__(self) -> Iterator[Any]:
        return map(key_out, self.record)

    def __eq__(self, other: object) -> bool:
        return self.record == (other.record if isinstance(other, Translated) else {key_in(k): value_in(v) for k, v in other.items()})

    __hash__ = None

    def __contains__(self, key: Any) -> bool:
        return key_in(key) in self.record

    def __getitem__(self, key: Any) -> Any:
        return value_out(self.record[key_in(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.record[key_in(key)] = value_in(value)

    def __delitem__(self, key: Any) -> None:
        del self.record[key_in(key)]

    def get(self, *arguments: Any) -> Any:
        return value_out(self.record.get(*map(key_in, arguments[:1]), *arguments[1:]))

    def pop(self, *arguments: Any) -> Any:
        return value_out(self.record.pop(*map(key_in, arguments[:1]), *arguments[1:]))

    def setdefault(self, *arguments: Any) -> Any:
        return value_out(self.record.setdefault(*map(key_in, arguments[:1]), *map(value_in, arguments[1:])))

    def popitem(self, *arguments: Any) -> tuple[Any, Any]:
        return pair_out(self.record.popitem(*arguments))

    def clear(self, *arguments: Any) -> None:
        self.record.clear(*arguments)

    def copy(self, *arguments: Any) -> "Translated":
        return Translated(self.record.copy(*arguments))

    def keys(self, *arguments: Any) -> View:
        return View(self.record.keys(*arguments), key_out)

    def values(self, *arguments: Any) -> View:
        return View(self.record.values(*arguments), value_out)

    def items(self, *arguments: Any) -> View:
        return View(self.record.items(*arguments), pair_out)

    def update(self, *arguments: Any, **entries: Any) -> None:
        translated = [
            Incoming(source) if hasattr(source, "keys")
            else ((key_in(pair[0]), *map(value_in, pair[1:])) for pair in source)
            for source in arguments
        ]  # fmt: skip
        self.record.update(*translated, **{key: value_in(value) for key, value in entries.items()})


def applied(name: str) -> Callable[[unittest.TestCase], None] | None:
    """The test of that name of the first class whose test is applicable; None if there is none."""
    for cls in BASES:
        if name in vars(cls) and f"{cls.__name__}.{name}" not in NOT_APPLICABLE:
            return lambda self: getattr(cls, name)(self)
    return None


APPLIED = {name: applied(name) for cls in BASES for name in vars(cls) if name.startswith("test_")}
ParametersRecordTest = type(
    "ParametersRecordTest", BASES[:1], {**APPLIED, "type2test": staticmethod(lambda: Translated(ParametersRecord()))}
)
ArrayRecordTest = type("ArrayRecordTest", BASES[:1], {**APPLIED, "type2test": staticmethod(lambda: Translated(ArrayRecord()))})


def test_what_is_not_applicable_is_all_that_does_not_run(monkeypatch):
    tests = {f"{cls.__name__}.{name}" for cls in BASES for name in vars(cls) if name.startswith("test_")}
    ran = set()
    for test in tests:
        cls, name = getattr(mapping_tests, test.partition(".")[0]), test.partition(".")[2]
        original = vars(cls)[name]

        def noted(self, test=test, original=original):
            ran.add(test)
            original(self)

        monkeypatch.setattr(cls, name, noted)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(ParametersRecordTest).run(result)
    assert result.wasSuccessful() and not result.skipped
    assert NOT_APPLICABLE.keys() <= tests and ran == tests - NOT_APPLICABLE.keys()
