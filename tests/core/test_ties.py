"""Entries that share memory: kept together, counted once, never torn apart behind anybody's back."""

import copy
import mmap
import pickle
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pytest

from flatrecord import Array, ParametersRecord


def overlap(record: ParametersRecord, left: str, right: str) -> bool:
    return np.shares_memory(record[left].numpy(), record[right].numpy())


@pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
@pytest.mark.parametrize("keep_input", [False, True])
def test_one_array_under_several_names(names, keep_input):
    source = dict.fromkeys(names, np.arange(3.0))
    record = ParametersRecord(source, keep_input)
    assert {array.ownership for array in record.values()} == {"snapshot" if keep_input else "taken"}
    assert record.ties() == [tuple(names)] and record.count_memory() == 24
    out = record.to_numpy_ndarrays(keep_input=False)
    out[0][0] = 9
    assert all(array[0] == 9 and array.flags.writeable for array in out)


def views():
    base = np.arange(100.0)
    return {"left": base[:60], "square": base.reshape(10, 10), "fortran": base.reshape(10, 10).T, "odd": base[1::2]}


@pytest.mark.parametrize("keep_input", [False, True])
def test_views_on_one_base(keep_input):
    expected = {key: array.copy() for key, array in views().items()}
    record = ParametersRecord(views(), keep_input)
    assert record.ties() == [("left", "square", "fortran")] and record.count_memory() == 800 + 400
    assert all(np.array_equal(record[key].numpy(), array) for key, array in expected.items())
    out = dict(zip(list(record), record.to_numpy_ndarrays(keep_input=False), strict=True))
    out["left"][12] = -1
    assert out["square"][1, 2] == out["fortran"][2, 1] == -1 and out["odd"][0] == 1


def test_parts_of_one_base_are_taken_together():
    def parts():
        base = np.arange(90.0)
        return {key: base[30 * i : 30 * (i + 1)] for i, key in enumerate("qkv")}

    record = ParametersRecord(parts())
    assert {array.ownership for array in record.values()} == {"taken"} and record.ties() == []
    assert record.count_memory() == 720
    record = ParametersRecord(record.to_numpy_ndarrays(keep_input=False))
    assert {array.ownership for array in record.values()} == {"taken"}
    few = parts()
    del few["k"], few["v"]
    assert ParametersRecord(few)["q"].ownership == "snapshot"
    few = dict.fromkeys("abc", np.arange(90.0)[:30])  # thrice the same third
    assert {array.ownership for array in ParametersRecord(few).values()} == {"snapshot"}


HOLD = {
    "an array": lambda source: source["a"],
    "a view": lambda source: source["b"][:1],
    "the base": lambda source: source["c"].base,
    "a weak reference": lambda source: weakref.ref(source["c"]),
}


@pytest.mark.parametrize("how", HOLD)
def test_a_tie_that_somebody_holds_is_copied_once(how):
    array = np.ones(50)
    source = {"a": array, "b": array, "c": array[:]}
    del array
    held = HOLD[how](source)
    record = ParametersRecord(source)
    assert {array.ownership for array in record.values()} == {"snapshot"} and held is not None
    assert record.ties() == [("a", "b", "c")] and record.count_memory() == 400


def test_ties_over_a_bytearray():
    data = bytearray(800)
    source = {"a": np.frombuffer(data), "b": np.frombuffer(data, "f4"), "c": np.frombuffer(data)[50:]}
    del data
    record = ParametersRecord(source)
    assert {array.ownership for array in record.values()} == {"taken"} and record.count_memory() == 800


@pytest.mark.parametrize("hold", [None, "array", "view", "weak reference"])
@pytest.mark.parametrize("copy", [None, True])
def test_a_tie_goes_out_as_a_tie(hold, copy):
    record = ParametersRecord(dict.fromkeys("ab", np.ones(50)))
    address = record["a"].numpy().ctypes.data
    held = {None: lambda: None, "array": lambda: record["b"], "view": record["a"].numpy,
            "weak reference": lambda: weakref.ref(record["a"])}[hold]()  # fmt: skip
    a, b = record.to_numpy_ndarrays(keep_input=False, copy=copy)
    a[0] = 9
    assert b[0] == 9 and (a.ctypes.data == address) is (hold is None and copy is None)
    if hold is not None and hold != "weak reference":
        assert np.asarray(held)[0] == 1


def test_a_tie_of_which_one_half_has_left():
    record = ParametersRecord(dict.fromkeys("ab", np.ones(50)))
    other = ParametersRecord({"b": record.pop("b")})
    with pytest.raises(ValueError, match="key 'a': copy=False, but the memory is still in use"):
        record.to_numpy_ndarrays(keep_input=False, copy=False)
    record.to_numpy_ndarrays(keep_input=False)[0][:] = 9
    assert (other["b"].numpy() == 1).all()


def test_one_array_object_under_two_names():
    array = Array(np.ones(5))
    record = ParametersRecord({"a": array, "b": array})
    assert record.ties() == [("a", "b")]
    del array
    a, b = record.to_numpy_ndarrays(keep_input=False)
    a[0] = 9
    assert b[0] == 9


@pytest.mark.parametrize("copy", [None, True])
def test_received_bytes_under_two_names_are_copied_once(copy):
    array = Array("float64", (5,), "numpy.ndarray", Array(np.ones(5)).data)
    record = ParametersRecord({"a": array, "b": array})
    del array
    a, b = record.to_numpy_ndarrays(keep_input=False, copy=copy)
    a[0] = 9
    assert b[0] == 9


def mapping() -> mmap.mmap:
    return mmap.mmap(-1, 4096, prot=mmap.PROT_READ)


@pytest.mark.parametrize("exporter", [lambda: bytes(4096), mapping])
def test_immutable_memory_that_is_reached_in_two_ways(exporter):
    def source():
        memory = exporter()
        return {"a": np.frombuffer(memory, "u1"), "b": np.asarray(memoryview(memory)).view("u1"), "c": np.frombuffer(memory, "u1")[64:128]}

    assert ParametersRecord(source(), copy=True).ties() == [("a", "b", "c")]
    record = ParametersRecord(source())
    assert {array.ownership for array in record.values()} == {"shared"} and record.ties() == [("a", "b", "c")]
    held = record["c"]
    a, b, c = record.to_numpy_ndarrays(keep_input=False)
    a[64] = 9
    assert b[64] == c[0] == 9 and held.numpy()[0] == 0


def test_copies_of_a_record_with_ties():
    record = ParametersRecord(dict.fromkeys("ab", np.ones(50)))
    record["part"] = Array(record["a"].numpy()[10:20], copy=False)
    assert record.ties() == [("a", "b", "part")]
    for other in (ParametersRecord(record, keep_input=True), ParametersRecord(record.copy(), copy=True)):
        assert other == record and other.ties() == [("a", "b", "part")] and other.count_memory() == 400
        assert not np.shares_memory(other["a"].numpy(), record["a"].numpy())
    for other in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert other == record and other.ties() == [("a", "b")]
    assert [view.flags.writeable for view in record.to_numpy_ndarrays(copy=True)] == [True] * 3


def test_a_tie_survives_a_failure():
    class Stubborn(dict):
        def __delitem__(self, key):
            if key == "first":
                raise RuntimeError("never")
            super().__delitem__(key)

    source = Stubborn(first=np.zeros(1), a=np.ones(5))
    source["b"] = source["a"]
    source["strided"] = np.arange(8.0)[::2]
    with pytest.raises(RuntimeError):
        ParametersRecord(source)
    assert list(source) == ["first", "a", "b", "strided"] and source["a"] is source["b"]

    record = ParametersRecord(dict.fromkeys("ab", np.ones(5)))
    record["c"] = Array("", [1], "numpy.ndarray", b"x")
    with pytest.raises(ValueError, match="key 'c'"):
        record.to_numpy_ndarrays(keep_input=False)
    del record["c"]
    held = record["a"]
    with pytest.raises(ValueError, match="key 'a': copy=False"):
        record.to_numpy_ndarrays(keep_input=False, copy=False)
    assert list(record) == ["a", "b"] and record.ties() == [("a", "b")] and held is record["a"]


@pytest.mark.memory
def test_out_of_memory_names_the_entry_for_which_there_was_no_room():
    script = """
        import resource, numpy as np
        from flatrecord import ParametersRecord
        base = np.zeros(1 << 28)  # 2 GiB
        source = {"odd": base[:8:2], "whole": base}
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        try:
            ParametersRecord(source)
        except MemoryError as error:
            print(error)
        assert list(source) == ["odd", "whole"] and source["whole"] is base
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"key 'whole': cannot allocate {2 << 30} bytes for an array\n"


def test_what_does_not_touch_is_not_tied():
    record = ParametersRecord({"a": np.zeros(4), "b": np.zeros(4), "empty": np.zeros(0), "none": np.zeros((0, 3))})
    assert record.ties() == [] and record.count_memory() == 64
    assert ParametersRecord().ties() == [] and ParametersRecord().count_memory() == 0


def test_memory_counts_what_is_kept():
    assert ParametersRecord({"a": np.zeros(100)[10:]}).count_memory() == 800  # all of its base
    assert ParametersRecord({"a": np.zeros(100)[90:]}).count_memory() == 80
    mine = np.zeros(100)
    assert ParametersRecord({"a": mine[90:]}, copy=False).count_memory() == 80
    data = Array(np.zeros(100)).data
    assert ParametersRecord({"a": Array("float64", [100], "numpy.ndarray", data)}).count_memory() == len(data)


@pytest.mark.parametrize("keep_input", [False, True])
@pytest.mark.parametrize("value", ["Array", "bytes", "ndarray"])
def test_a_copy_of_one_thing_under_two_names_is_one_thing_under_two_names(value, keep_input):
    thing = {"Array": lambda: Array(np.arange(5.0)), "bytes": lambda: np.frombuffer(bytes(40)), "ndarray": lambda: np.arange(5.0)}[value]()
    before = thing.numpy() if value == "Array" else thing
    address = before.ctypes.data
    source = {"a": thing, "b": thing, "c": np.ones(3)}
    del thing, before
    record = ParametersRecord(source, keep_input, copy=True)
    assert record.ties() == [("a", "b")]
    assert record["a"].numpy().ctypes.data == record["b"].numpy().ctypes.data != address
