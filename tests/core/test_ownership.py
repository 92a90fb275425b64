"""Who owns the memory of an entry, on the way into a record and out of it."""

import mmap
import pickle
import weakref
from collections import OrderedDict, UserDict

import ml_dtypes
import numpy as np
import pytest
from arrays import check_taken, entered, model

from flatrecord import Array, ArrayRecord, ParametersRecord


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


TAKEN = {
    "owner": lambda: np.zeros(100),
    "Fortran order": lambda: np.asfortranarray(np.zeros((10, 10))),
    "reshaped": lambda: np.zeros(100).reshape(10, 10),
    "transposed twice": lambda: np.zeros((4, 5, 6)).T.reshape(-1, order="F"),
    "unpickled": lambda: pickle.loads(pickle.dumps(np.zeros(1000), 4)),
    "most of its base": lambda: np.zeros(100)[10:],
    "bfloat16": lambda: np.zeros(100, ml_dtypes.bfloat16),
    "read-only": lambda: (a := np.zeros(100), setattr(a.flags, "writeable", False))[0],
    "structured": lambda: np.zeros(3, [("a", "f4"), ("b", "i8")]),
    "empty": lambda: np.zeros((0, 3)),
    "out of a record": lambda: ParametersRecord([np.zeros(100)]).to_numpy_ndarrays(keep_input=False)[0],
    "copied out of a record": lambda: Array(np.zeros(100)).numpy(copy=True),
    "read into a bytearray": lambda: np.frombuffer(bytearray(800)),
    "view on a bytearray": lambda: np.frombuffer(memoryview(bytearray(900))[100:], "f4").reshape(10, 20),
    "another exporter below": lambda: np.asarray(memoryview(np.zeros(100))),
    "last view on an array": lambda: Array(np.zeros(100)).numpy(),
}
COPIED = {
    "strided": lambda: np.zeros((10, 10))[:, ::2],
    "reversed": lambda: np.zeros(100)[::-1],
    "small part of its base": lambda: np.zeros(100)[:10],
    "unknown owner": lambda: np.from_dlpack(np.zeros(100)),
    "subclass": lambda: np.zeros(100).view(np.recarray),
}
SHARED = {
    "bytes": lambda: np.frombuffer(bytes(800)),
    "part of bytes": lambda: np.frombuffer(bytes(800), np.uint8)[100:200],
    "memoryview of bytes": lambda: np.frombuffer(memoryview(bytes(800))),
}


@pytest.mark.parametrize("how", TAKEN)
def test_what_nobody_else_holds_is_taken(how):
    check_taken(TAKEN[how])


@pytest.mark.parametrize("how", COPIED)
def test_what_cannot_be_taken_is_copied(how):
    value = COPIED[how]()
    record = ParametersRecord({"x": COPIED[how]()})
    assert record["x"].ownership == "snapshot"
    assert np.array_equal(record["x"].numpy(), value)


@pytest.mark.parametrize("how", SHARED)
def test_immutable_memory_is_shared(how):
    for keep_input in (False, True):
        assert entered(SHARED[how], keep_input=keep_input) == "shared"
    assert entered(SHARED[how], copy=True) == "snapshot"


def test_taking_keeps_the_memory_where_it_is():
    source = model()
    addresses = [address(array) for array in source.values()]
    record = ParametersRecord(source)
    assert source == {}
    assert [address(array.numpy()) for array in record.values()] == addresses


@pytest.mark.parametrize("hold", [lambda a: a, lambda a: a[:1], memoryview, weakref.ref, lambda a: a.T, lambda a: a.ctypes])
def test_a_record_does_not_change_behind_its_back(hold):
    source = model()
    held = hold(source["layer1"])
    record = ParametersRecord(source)
    assert [array.ownership for array in record.values()] == ["taken", "snapshot", "taken", "taken"]
    assert held is not None


def test_a_view_held_elsewhere_counts_for_its_base():
    base = np.zeros((2, 50))
    assert entered(lambda: base[:]) == "snapshot"
    record = ParametersRecord({"x": base.reshape(100)})
    base[:] = 1
    assert not record["x"].numpy().any()


def test_every_way_to_a_bytearray_counts():
    def array(data):
        return np.frombuffer(data)

    data = bytearray(800)
    for holder in (
        lambda: array(data),
        lambda: array(memory := memoryview(bytearray(800)))[len(hold.append(memory) or ()) :],
        lambda: array(memory := memoryview(bytearray(800)))[len(hold.append(memory[:]) or ()) :],
        lambda: array(memory := memoryview(bytearray(800)))[len(hold.append(memory.obj) or ()) :],
        lambda: (values := array(bytearray(800)), hold.append(weakref.ref(values.base)))[0],
        lambda: (values := array(bytearray(800)), hold.append(memoryview(values.base)))[0],
    ):
        hold = []
        assert entered(holder) == "snapshot"


def test_an_unpickled_array_writes_to_its_bytes():
    mine = pickle.loads(pickle.dumps(np.zeros(1000), 4))
    assert type(mine.base) is bytes and mine.flags.writeable
    read_only = mine.view()
    read_only.flags.writeable = False
    arrays = [Array(mine), Array(read_only), ParametersRecord({"x": mine})["x"]]
    mine[:] = 7
    assert all(array.ownership == "snapshot" and not array.numpy().any() for array in arrays)


def test_a_borrowed_mapping_cannot_be_closed_under_an_array():
    for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
        mapping = mmap.mmap(-1, 4096, prot=protection)
        array = Array(np.frombuffer(mapping, np.uint8), copy=False)
        with pytest.raises(BufferError):
            mapping.close()
        assert not array.numpy().any()


def test_a_borrowed_array_shows_what_is_written_to_it():
    source = model()
    held = source["layer1"]
    record = ParametersRecord(source, copy=False)
    assert source == {} and record["layer1"].ownership == "borrowed"
    held[:] = 7
    assert record["layer1"].numpy()[0, 0] == 7


def test_keep_input_leaves_the_input_alone():
    source = model()
    before = dict(source)
    record = ParametersRecord(source, keep_input=True)
    assert list(source) == list(before) and all(source[key] is before[key] for key in before)
    source["layer1"][:] = 7
    assert record["layer1"].numpy()[0, 0] == 1


def test_array_values():
    array = Array(np.zeros(3))
    assert ParametersRecord({"a": array})["a"] is array
    assert ParametersRecord({"a": array}, keep_input=True, copy=False)["a"] is array
    assert ParametersRecord({"a": array}, copy=True)["a"] == array
    for record in (ParametersRecord({"a": array}, copy=True), ParametersRecord({"a": array}, keep_input=True)):
        assert record["a"] == array and not np.shares_memory(record["a"].numpy(), array.numpy())
    immutable = Array("uint8", [3], "", b"abc")
    assert ParametersRecord({"a": immutable}, keep_input=True)["a"] is immutable


def test_arrays_and_ndarrays_mixed_keep_their_order():
    record = ParametersRecord(OrderedDict(z=np.zeros(1), a=Array(np.ones(2)), m=np.ones((2, 2), order="F")))
    assert list(record) == ["z", "a", "m"] and [array.shape for array in record.values()] == [(1,), (2,), (2, 2)]


def test_a_record_as_input():
    source = ParametersRecord(model())
    arrays = list(source.values())
    record = ArrayRecord(source, keep_input=False)
    assert not source and all(a is b for a, b in zip(record.values(), arrays, strict=True))


@pytest.mark.parametrize("keep_input", [False, True])
def test_copy_false_names_what_has_to_be_copied(keep_input):
    source = {**model(), "strided": np.zeros((4, 4))[:, ::2]}
    with pytest.raises(ValueError, match=r"key 'strided'.*copy=False.*not contiguous"):
        ParametersRecord(source, keep_input=keep_input, copy=False)
    assert len(source) == 5


def test_each_entry_leaves_before_the_next_is_handled():
    seen = []

    class Watched(UserDict):
        def __getitem__(self, key):
            seen.append((key, len(self.data)))
            return self.data[key]

    source = Watched(model(3))
    ParametersRecord(source)
    assert sorted(length for _, length in seen[3:]) == [1, 2, 3]
    assert not source


def test_out_and_in_again_is_the_same_memory():
    source = model()
    ndarrays = list(source.values())
    addresses = [address(array) for array in ndarrays]
    identities = [id(array) for array in ndarrays]
    del ndarrays
    for _ in range(3):
        record = ParametersRecord(source)
        out = record.to_numpy_ndarrays(keep_input=False)
        assert len(record) == 0
        assert [address(array) for array in out] == addresses and [id(array) for array in out] == identities
        assert all(array.flags.writeable for array in out)
        source = {str(i): array for i, array in enumerate(out)}
        out = None


def test_a_snapshot_is_handed_back_writable_without_a_copy():
    record = ParametersRecord(model(), keep_input=True)
    addresses = [address(array.numpy()) for array in record.values()]
    out = record.to_numpy_ndarrays(keep_input=False)
    assert [address(array) for array in out] == addresses
    out[0][:] = 5
    assert ParametersRecord(out)["0"].ownership == "taken"


def test_received_bytes_are_handed_back_as_a_copy():
    data = Array(np.arange(3.0)).data
    record = ParametersRecord({"a": Array("float64", [3], "numpy.ndarray", data)})
    (out,) = record.to_numpy_ndarrays(keep_input=False)
    out[0] = 9
    assert data == Array(np.arange(3.0)).data


def test_memory_in_use_elsewhere_is_copied_on_the_way_out():
    record = ParametersRecord(model())
    view, array = record["layer0"].numpy(), record["layer1"]
    other = ParametersRecord({"b": record["layer2"]})
    out = record.to_numpy_ndarrays(keep_input=False)
    for ndarray in out:
        ndarray[:] = 9
    assert (view == 0).all() and (array.numpy() == 1).all() and (other["b"].numpy() == 2).all()


def test_copy_on_the_way_out():
    record = ParametersRecord(model())
    for view in record.to_numpy_ndarrays():
        assert not view.flags.writeable and view.base is not None
    copies = record.to_numpy_ndarrays(copy=True)
    assert all(array.flags.writeable for array in copies)
    del view, copies
    held = record["layer2"]
    with pytest.raises(ValueError, match=r"key 'layer2'.*still in use"):
        record.to_numpy_ndarrays(keep_input=False, copy=False)
    assert list(record) == list(model()) and record["layer2"] is held
    del held
    assert len(record.to_numpy_ndarrays(keep_input=False, copy=False)) == 4


def test_a_borrowed_array_goes_back_as_itself_or_as_a_copy():
    mine = np.zeros(3)
    assert ParametersRecord([mine], copy=False).to_numpy_ndarrays(keep_input=False, copy=False)[0] is mine
    assert not np.shares_memory(ParametersRecord([mine], copy=False).to_numpy_ndarrays(keep_input=False)[0], mine)


def test_an_entry_that_is_no_numpy_array_stays_in_the_record():
    record = ParametersRecord({**model(), "other": Array("float32", [1], "torch", b"1234")})
    for keep_input in (False, True):
        with pytest.raises(TypeError, match="key 'other': stype 'torch'"):
            record.to_numpy_ndarrays(keep_input=keep_input)
        assert len(record) == 5
