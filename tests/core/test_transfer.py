"""All or nothing: whatever goes wrong on the way into a record or out of it, no entry is lost."""

import json
import resource
import subprocess
import sys
import textwrap
import weakref
from collections import OrderedDict
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pytest
from arrays import model
from containers import LetsGoAndRaises, Stubborn, StubbornUser, Unreadable, Vanishing

from flatrecord import Array, ArrayRecord, ParametersRecord


def whole(source, before):
    """Whether `source` holds the same objects in the same order."""
    return list(source) == list(before) and all(source[key] is before[key] for key in before)


BAD = {
    "object dtype": (np.array([None]), ValueError),
    "not an array": ([1, 2], TypeError),
    "masked": (np.ma.masked_array([1]), TypeError),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_value_last_in_a_long_dict(bad):
    value, error = BAD[bad]
    source = {**model(1000), "bad one": value}
    before = dict(source)
    with pytest.raises(error, match="key 'bad one'"):
        ParametersRecord(source)
    assert whole(source, before)


def test_a_bad_key_last_in_a_long_dict():
    source = {**model(1000), 7: np.zeros(3)}
    before = dict(source)
    with pytest.raises(TypeError, match="key must be str, got int: 7"):
        ParametersRecord(source)
    assert whole(source, before)


@pytest.mark.parametrize("kind", [Stubborn, LetsGoAndRaises, StubbornUser])
def test_an_input_whose_deletion_raises(kind):
    source = kind(model())
    held = source["layer3"]  # copied, and yet it must be the same object that comes back
    identities = {key: id(array) for key, array in source.items()}
    with pytest.raises(RuntimeError, match=r"never|too late") as caught:
        ParametersRecord(source)
    assert caught.value.__notes__ == ["every entry was put back into the input, in the old order", "at key 'layer1'"]
    assert {key: id(array) for key, array in source.items()} == identities and list(source) == list(model())
    assert held is source["layer3"]


def test_an_input_that_takes_nothing_back():
    class OneWay(Stubborn):
        closed = False

        def __setitem__(self, key, value):
            if self.closed:
                raise KeyError("closed")
            super().__setitem__(key, value)

    source = OneWay(model())
    source.closed = True
    with pytest.raises(RuntimeError) as caught:
        ParametersRecord(source)
    left = dict(caught.value.not_put_back)
    assert sorted(left) == ["layer2", "layer3"] and (left["layer3"] == 3).all()
    assert "the input did not take back ['layer2', 'layer3']" in caught.value.__notes__[0]
    assert left.keys() | source.keys() == model().keys()


def test_an_input_that_cannot_be_read_again():
    source = Unreadable(model())
    with pytest.raises(OSError, match="gone") as caught:
        ParametersRecord(source)
    assert list(source.data) == list(model()) and "at key 'layer1'" in caught.value.__notes__


def test_an_entry_that_vanished_is_not_put_back():
    source = Vanishing(model())
    with pytest.raises(KeyError, match="layer1"):
        ParametersRecord(source)
    assert list(source) == ["layer0", "layer2", "layer3"]
    assert all(isinstance(array, np.ndarray) for array in source.values())


class Key(str):
    """Raises from what a dict calls, once `hostile` is set; and from what an error message calls, always."""

    hostile = False

    def __hash__(self):
        if Key.hostile:
            raise RuntimeError("hash")
        return super().__hash__()

    def __repr__(self):
        raise RuntimeError("repr")

    __eq__ = str.__eq__


@pytest.mark.parametrize("when", range(3))
def test_hostile_keys(when):
    class Turning(dict):
        deleted = 0

        def __delitem__(self, key):
            self.deleted += 1
            Key.hostile = self.deleted > when
            super().__delitem__(key)

    source = Turning({Key(name): array for name, array in model(3).items()})
    try:
        with pytest.raises(RuntimeError) as caught:
            ParametersRecord(source)
    finally:
        Key.hostile = False
    left = getattr(caught.value, "not_put_back", [])
    assert {str(key) for key, _ in left} | {str(key) for key in source} == {"layer0", "layer1", "layer2"}


def test_keys_of_a_subclass_become_plain_text():
    class Name(str):
        pass

    record = ParametersRecord({Name("a"): np.zeros(3)})
    record[Name("b")] = record["a"]
    record.update({Name("c"): record["a"]})
    record.setdefault(Name("d"), record["a"])
    assert list(record) == ["a", "b", "c", "d"] and {type(key) for key in record} == {str}

    class Same(str):
        __eq__ = object.__eq__
        __hash__ = object.__hash__

    source = {Same("a"): np.zeros(3), Same("a"): np.ones(3)}
    with pytest.raises(ValueError, match="two keys"):
        ParametersRecord(source)
    assert len(source) == 2


def test_a_second_interrupt_while_entries_go_back():
    class Interrupted(OrderedDict):
        left = 2

        def __delitem__(self, key):
            if key == "layer1":
                raise KeyboardInterrupt
            super().__delitem__(key)

        def __setitem__(self, key, value):
            if len(self) == 2 and self.left:
                self.left -= 1
                raise KeyboardInterrupt
            super().__setitem__(key, value)

    source = Interrupted()
    for key, array in model().items():
        OrderedDict.__setitem__(source, key, array)
    source.left = 1
    with pytest.raises(KeyboardInterrupt):
        ParametersRecord(source)
    assert list(source) == list(model())


def test_a_failure_on_the_way_out_leaves_every_array_readable():
    data = Array(np.arange(1000.0)).data
    record = ParametersRecord({"first": Array(np.arange(1000.0))})
    record["fields"] = Array("float64", (1000,), "numpy.ndarray", bytearray(data))
    record["taken"] = ParametersRecord([np.arange(3.0)])["0"]
    view, arrays = record["first"].numpy(), dict(record)
    for _ in range(3):
        del arrays
        with pytest.raises(ValueError, match="key 'first'"):
            record.to_numpy_ndarrays(keep_input=False, copy=False)
        arrays = dict(record)
        assert arrays["fields"].data == data and arrays["taken"].numpy().tolist() == [0, 1, 2]
    assert view[999] == 999


def test_a_view_on_a_record_is_live_after_a_failure():
    record = ParametersRecord({"a": Array("", [1], "numpy.ndarray", b"x"), **model()})
    keys = record.keys()
    held = record["layer1"]
    del record["a"]
    with pytest.raises(ValueError, match="key 'layer1': copy=False, but the memory is still in use"):
        record.to_numpy_ndarrays(keep_input=False, copy=False)
    assert list(keys) == list(record) == list(model()) and record["layer1"] is held


class Resurrected(Array):
    kept: ClassVar[list] = []

    def __del__(self):
        self.kept.append(self)


def test_an_array_that_gave_up_its_memory_is_empty():
    record = ParametersRecord()
    record["a"] = Resurrected(np.arange(1000.0))
    record.to_numpy_ndarrays(keep_input=False)[0][:] = 9
    (kept,) = Resurrected.kept
    assert kept.nbytes == 0 and kept.data == b""
    Resurrected.kept.clear()


def test_an_array_with_a_weak_reference_keeps_its_memory():
    record = ParametersRecord({"a": np.arange(3.0)})
    reference = weakref.ref(record["a"])
    with pytest.raises(ValueError, match="still in use"):
        record.to_numpy_ndarrays(keep_input=False, copy=False)
    assert reference() is record["a"]


def test_a_borrowed_array_that_was_reshaped_does_not_go_back_as_itself():
    mine = np.zeros(6)
    record = ParametersRecord([mine], copy=False)
    mine.resize((2, 3), refcheck=False)  # in place, of the same size
    with pytest.raises(ValueError, match="has to be copied"):
        record.to_numpy_ndarrays(keep_input=False, copy=False)
    assert record["0"].numpy().shape == (6,)


@pytest.mark.parametrize("held", [False, True])
def test_one_array_under_several_names_goes_back_as_one(held):
    shared = np.zeros(3)
    source = Stubborn(layer0=shared, layer1=shared, layer2=shared, layer3=shared)
    before = id(shared)
    if not held:
        del shared
    with pytest.raises(RuntimeError):
        ParametersRecord(source)
    assert list(source) == list(model()) and {id(array) for array in source.values()} == {before}


def test_a_copy_that_goes_back_is_said_to_be_one():
    source = Stubborn(model(3))
    source["recarray"], source["strided"] = np.zeros(3).view(np.recarray), np.arange(8)[::2]
    with pytest.raises(RuntimeError) as caught:
        ParametersRecord(source)
    assert list(source) == [*model(3), "recarray", "strided"] and source["strided"].tolist() == [0, 2, 4, 6]
    assert "as equal copies of arrays that nobody held any more: ['recarray', 'strided']" in caught.value.__notes__


def test_what_lives_on_anyway_goes_back_as_itself(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(1000))
    source = Stubborn(model(2))
    source["memmap"] = np.load(tmp_path / "a.npy", mmap_mode="r+")
    source["bytes"] = np.frombuffer(bytes(80))
    source["array"] = Array(np.zeros(3))
    identities = {key: id(value) for key, value in source.items()}
    with pytest.raises(RuntimeError):
        ParametersRecord(source)
    assert {key: id(value) for key, value in source.items()} == identities


@pytest.mark.parametrize("keep_input", [None, 0, 1, "no", np.True_])
def test_keep_input_is_true_or_false(keep_input):
    source = model()
    for work in (lambda: ParametersRecord(source, keep_input), lambda: ArrayRecord(source, keep_input=keep_input)):
        with pytest.raises(TypeError, match="keep_input must be True or False"):
            work()
    assert len(source) == 4
    with pytest.raises(TypeError, match="keep_input must be True or False"):
        ParametersRecord(source).to_numpy_ndarrays(keep_input=keep_input)


def test_an_input_without_deletion():
    with pytest.raises(TypeError, match="keep_input=False takes the entries out of the input, which mappingproxy"):
        ParametersRecord(MappingProxyType(model()))
    assert len(ParametersRecord(MappingProxyType(model()), keep_input=True)) == 4


def test_a_list_comes_back_as_well():
    source = [np.zeros(3), np.zeros((4, 4))[:, ::2], np.array([None])]
    before = list(source)
    with pytest.raises(ValueError, match="key '2'"):
        ParametersRecord(source)
    assert all(a is b for a, b in zip(source, before, strict=True))


def in_fresh_process(script: str) -> dict:
    """Run `script`, which prints a JSON object last, with 4 GiB of address space."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.memory
@pytest.mark.parametrize("kind", ["dict", "collections.OrderedDict", "list"])
@pytest.mark.parametrize("keep_input", [False, True])
def test_out_of_memory_in_the_middle(kind, keep_input):
    found = in_fresh_process(f"""
        import collections, json, numpy as np
        from flatrecord import ParametersRecord
        names = [f"layer{{i}}" for i in range(4)]
        # Taken, refused (5 GiB of a broadcast element), copied because it is strided, copied because it is held.
        arrays = [np.ones(3), np.broadcast_to(np.ones(1), 5 << 27), np.arange(8.)[::2], np.arange(3.)]
        held = arrays[3]
        source = arrays[:] if {kind!r} == "list" else {kind}(zip(names, arrays))
        identity = [id(a) for a in arrays]
        del arrays
        try:
            ParametersRecord(source, keep_input={keep_input})
        except MemoryError as error:
            message = str(error)
        values = list(source) if {kind!r} == "list" else list(source.values())
        print(json.dumps(dict(
            message=message,
            order=list(source) == names if {kind!r} != "list" else True,
            same=[id(values[i]) == identity[i] for i in (0, 1, 3)],
            strides=values[2].strides,
            values=[values[0].tolist(), values[2].tolist(), values[3].tolist()],
            writable=[values[0].flags.writeable, values[2].flags.writeable],
        )))
    """)
    key = "1" if kind == "list" else "layer1"
    assert f"key '{key}': cannot allocate {5 << 30} bytes" in found["message"]
    assert found["order"]
    assert found["same"] == [True, True, True]
    # Nobody else held the strided array: it was freed once copied, and its equal came back.
    assert found["strides"] == [16 if keep_input else 8]
    assert found["values"] == [[1, 1, 1], [0, 2, 4, 6], [0, 1, 2]]
    assert found["writable"] == [True, True]


@pytest.mark.memory
def test_what_was_received_goes_back_with_the_same_bytes():
    found = in_fresh_process("""
        import json, numpy as np
        from flatrecord import Array, ParametersRecord
        data = Array(np.arange(4.)).data
        odd = data.replace(b"(4,), }", b"( 4,)} ")  # as another writer might put it
        assert odd != data
        record = ParametersRecord({"big": Array(np.zeros(2 << 27), copy=False)})  # 2 GiB, of which no second copy fits
        for key, words in (("ours", data), ("odd", odd)):
            record[key] = Array("<f8", [4], "numpy.ndarray", bytes(bytearray(words)))
        big = record["big"]
        try:
            record.to_numpy_ndarrays(keep_input=False)
        except MemoryError as error:
            message = str(error)
        print(json.dumps(dict(
            message=message, keys=list(record), data=[record["ours"].data == data, record["odd"].data == odd],
            values=[record[key].numpy().tolist() for key in ("ours", "odd")],
            writable=[record[key].numpy().flags.writeable for key in ("ours", "odd")],
            shape=record["odd"].shape, dtype=record["odd"].dtype,
        )))
    """)
    assert found["message"].startswith("key 'big': cannot allocate") and found["keys"] == ["big", "ours", "odd"]
    assert found["data"] == [True, True] and found["values"] == [[0, 1, 2, 3]] * 2
    assert found["writable"] == [False, False] and found["shape"] == [4]
    assert found["dtype"] == "<f8"


@pytest.mark.memory
def test_out_of_memory_on_the_way_out():
    found = in_fresh_process("""
        import json, numpy as np
        from flatrecord import Array, ParametersRecord
        big = Array(np.zeros(2 << 27), copy=False)  # 2 GiB, of which no second copy fits
        record = ParametersRecord({"a": np.arange(3.), "b": big, "c": np.arange(8.)[::2]})
        try:
            record.to_numpy_ndarrays(keep_input=False)
        except MemoryError as error:
            message = str(error)
        print(json.dumps(dict(
            message=message, keys=list(record), same=record["b"] is big, values=record["c"].numpy().tolist(),
            ownership=[a.ownership for a in record.values()],
        )))
    """)
    assert found["message"] == f"key 'b': cannot allocate {2 << 30} bytes for an array"
    assert found["keys"] == ["a", "b", "c"] and found["same"] and found["values"] == [0, 2, 4, 6]
    assert found["ownership"] == ["taken", "borrowed", "snapshot"]
