"""ParametersRecord as a mapping: the behaviour of Flower's class."""

import copy
import pickle
import weakref
from collections import OrderedDict, UserDict
from collections.abc import MutableMapping

import numpy as np
import pytest

from flatrecord import Array, ArrayRecord, ParametersRecord


class Mine(ParametersRecord):
    """A subclass that pickle can find."""


def arrays(keys="abc"):
    return {key: Array(np.full(3, ord(key), "f4")) for key in keys}


@pytest.fixture(params=[ParametersRecord, ArrayRecord])
def cls(request):
    return request.param


@pytest.fixture
def record(cls):
    return cls(arrays())


def test_is_a_mutable_mapping(record):
    assert isinstance(record, MutableMapping)
    match record:
        case {"a": first}:
            assert first is record["a"]


def test_empty(cls):
    for record in (cls(), cls(None), cls({}), cls([])):
        assert len(record) == 0 and not record and list(record) == []
        assert record == {} and record.count_bytes() == 0 and record.to_numpy_ndarrays() == []
        assert repr(record) == f"{cls.__name__}({{}})"


def test_reading(record):
    assert list(record) == ["a", "b", "c"] and list(reversed(record)) == ["c", "b", "a"]
    assert len(record) == 3 and "a" in record and "z" not in record and 1 not in record
    assert record.get("a") is record["a"]
    assert record.get("z") is None and record.get("z", 1) == 1
    for key in ("z", 1):
        with pytest.raises(KeyError, match=repr(key)):
            record[key]


def test_changing(record):
    new = Array(np.zeros(1))
    record["b"] = new
    record["d"] = new
    assert list(record) == ["a", "b", "c", "d"] and record["b"] is new
    del record["a"]
    assert list(record) == ["b", "c", "d"]
    with pytest.raises(KeyError, match="'a'"):
        del record["a"]
    record.clear()
    assert not record


def test_pop(record):
    first = record["a"]
    assert record.pop("a") is first and "a" not in record
    assert record.pop("a", None) is None and record.pop("a", 5) == 5
    with pytest.raises(KeyError, match="'a'"):
        record.pop("a")


def test_popitem_takes_the_first(record):
    assert [record.popitem()[0] for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(KeyError, match="empty"):
        record.popitem()


def test_setdefault(record):
    first, new = record["a"], Array(np.zeros(1))
    assert record.setdefault("a", new) is first and record.setdefault("a") is first
    assert record.setdefault("d", new) is new and record["d"] is new
    with pytest.raises(TypeError, match="key 'e': a value must be an Array, got NoneType"):
        record.setdefault("e")
    with pytest.raises(TypeError, match="key must be str"):
        record.setdefault(1, new)
    assert list(record) == ["a", "b", "c", "d"]


def test_update(record):
    new = Array(np.zeros(1))
    record.update({"a": new})
    record.update([("d", new)], e=new)
    record.update(ParametersRecord({"f": new}))
    record.update(UserDict(g=new))
    record.update()
    assert list(record) == list("abcdefg") and record["a"] is new
    for wrong in ({"h": new, "i": 1}, [("h", new), (1, new)], {"h": np.zeros(3)}):
        with pytest.raises(TypeError):
            record.update(wrong)
    for wrong in (["hi"], [1]):
        with pytest.raises(TypeError, match="pairs of key and Array"):
            record.update(wrong)
    for wrong in ([("h",)], [("h", new, new)], [("h", new), ()]):
        with pytest.raises(ValueError, match="pairs of key and Array"):
            record.update(wrong)
    with pytest.raises(TypeError, match=r"got numpy.ndarray; Array\(value\) makes one"):
        record.update(h=np.zeros(3))
    assert list(record) == list("abcdefg")  # nothing of a wrong update is put in


def test_views_are_live(record):
    keys, values, items = record.keys(), record.values(), record.items()
    record["d"] = record["a"]
    assert list(keys) == ["a", "b", "c", "d"]
    assert len(values) == 4 and next(iter(reversed(values))) is record["a"]
    assert ("d", record["a"]) in items and keys & {"a", "z"} == {"a"}
    with pytest.raises((TypeError, AttributeError)):
        keys.mapping["x"] = 1  # no way around the checks


@pytest.mark.parametrize("view", ["__iter__", "keys", "values", "items"])
def test_changing_while_iterating(record, view):
    with pytest.raises(RuntimeError, match="changed size"):
        for _ in getattr(record, view)():
            record.pop("a", None)


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
def test_wrong_key_type(record, key):
    value = record["a"]
    with pytest.raises(TypeError, match=f"key must be str, got {type(key).__name__}"):
        record[key] = value
    with pytest.raises(TypeError, match=f"key must be str, got {type(key).__name__}"):
        ParametersRecord({"x": value, key: value})


@pytest.mark.parametrize("value", [1, None, b"a", [1.0], "a"])
def test_wrong_value_type(record, value):
    with pytest.raises(TypeError, match=f"key 'x': a value must be an Array, got {type(value).__name__}$"):
        record["x"] = value
    with pytest.raises(TypeError, match=f"key 'x': a value must be an Array, a NumPy array or a torch tensor, got {type(value).__name__}"):
        ParametersRecord({"x": value})


@pytest.mark.parametrize("source", [1, "abc", b"abc", {"a"}, iter([]), np.zeros(3)])
def test_wrong_input(cls, source):
    with pytest.raises(TypeError, match="must be a mapping or a list"):
        cls(source)


def test_equality_ignores_order(cls, record):
    other = OrderedDict(reversed(list(arrays().items())))
    for equal in (arrays(), other, cls(arrays()), cls(dict(other)), UserDict(other)):
        assert record == equal and equal == record
    assert record != arrays("ab") and record != arrays("abd") and record != 1 and record != []
    assert ParametersRecord(arrays()) == ArrayRecord(arrays())
    with pytest.raises(TypeError):
        hash(record)


def test_nobody_gets_hold_of_the_dict_inside(record):
    got = []

    class Curious(dict):
        __hash__ = None

        def __eq__(self, other):
            got.append(other)
            return True

    assert record != Curious()
    record.keys().mapping == Curious()  # noqa: B015 (a mappingproxy hands the dict below it to __eq__)
    for inside in got:
        inside["x"] = bytearray(200)
        for work in (record.to_numpy_ndarrays, record.count_bytes, lambda: record.to_numpy_ndarrays(keep_input=False)):
            with pytest.raises(TypeError, match="bytearray"):
                work()


def test_copy_shares_the_arrays_and_deepcopy_does_not(record):
    for shallow in (record.copy(), copy.copy(record)):
        assert type(shallow) is type(record) and shallow == record and shallow["a"] is record["a"]
        del shallow["a"]
        assert "a" in record
    deep = copy.deepcopy(record)
    assert type(deep) is type(record) and list(deep.items()) == list(record.items())
    assert not np.shares_memory(deep["a"].numpy(), record["a"].numpy())


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(record, protocol):
    again = pickle.loads(pickle.dumps(record, protocol))
    assert type(again) is type(record) and list(again.items()) == list(record.items())


def test_repr_is_bounded():
    record = ParametersRecord({f"layer{i}": Array(np.zeros(1000)) for i in range(1000)})
    assert repr(record).startswith("ParametersRecord({'layer0': Array(dtype='float64'")
    assert repr(record).endswith("... 996 more})") and len(repr(record)) < 700


def test_weak_references(record):
    assert weakref.ref(record)() is record


def test_subclass():
    mine = Mine(arrays())
    mine.note = ["kept"]
    for again in (mine.copy(), copy.copy(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert type(again) is Mine and again == mine and again.note == ["kept"]
    assert type(Mine.from_numpy_ndarrays([np.zeros(3)])) is Mine


def test_a_list_of_ndarrays(cls):
    for make in (cls, cls.from_numpy_ndarrays):
        source = [np.zeros(3), np.ones((2, 2))]
        record = make(source)
        assert list(record) == ["0", "1"]
        assert len(source) == (0 if cls is ParametersRecord else 2)
    assert list(cls((np.zeros(3),), keep_input=True)) == ["0"]
    with pytest.raises(TypeError, match="keep_input=False takes the entries out of the input, which tuple does not"):
        cls((np.zeros(3),), keep_input=False)
    with pytest.raises(TypeError, match="must be a list"):
        cls.from_numpy_ndarrays({"a": np.zeros(3)})


def test_default_of_keep_input():
    for cls, left in ((ParametersRecord, 0), (ArrayRecord, 3)):
        source = arrays()
        cls(source)
        assert len(source) == left
