"""What comes in: chunks land in their Array's memory and are freed; whatever is wrong with them is an error."""

import io
import json

import numpy as np
import pytest
from flower.peer import message, received, sent
from flwr.app.message.arraychunk import ArrayChunk as StockChunk
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from flatrecord.flower import Array, ArrayChunk, ArrayRecord, pulling
from flatrecord.flower.landing import Landing
from flatrecord.flower.pulling import Arrivals
from flatrecord.flower.wire import CHUNK, head

MIB = 1 << 20


def parts(array: Array) -> tuple[bytes, dict[str, ArrayChunk]]:
    """A deflated Array and its chunks as they come in."""
    return array.deflate(), {name: ArrayChunk.inflate(chunk.deflate()) for name, chunk in array.slice_array()}


def test_chunks_are_freed_when_they_have_landed():
    freed = []

    class Content(bytes):
        def __del__(self):
            freed.append(len(self))

    array = Array(np.random.default_rng(0).integers(0, 256, 12 * MIB, "u1"))
    contents = {name: Content(chunk.deflate()) for name, chunk in array.slice_array()}
    chunks = {name: ArrayChunk.inflate(content) for name, content in contents.items()}
    contents.clear()
    assert len(chunks) == 3 and freed == []
    back = Array.inflate(array.deflate(), chunks)
    assert len(freed) == 3
    assert back == array and back.ownership == "snapshot"
    # What they show now is the Array's own memory.
    assert [chunk.deflate() for chunk in chunks.values()] == [chunk.deflate() for _, chunk in array.slice_array()]
    edge = len(back.segments()[0])
    for i, chunk in enumerate(chunks.values()):
        if i:
            assert np.shares_memory(np.frombuffer(chunk.data, "u1"), back.numpy(copy=False))
            assert np.frombuffer(chunk.data, "u1").ctypes.data == back.numpy(copy=False).ctypes.data + i * CHUNK - edge


def test_the_memory_of_what_was_received_is_handed_over():
    content = message(arrays=ArrayRecord({"x": np.random.default_rng(0).standard_normal(2 * MIB), "y": np.ones(3)}))
    record = received(content, sent(content))["arrays"]
    addresses = [array.numpy(copy=False).ctypes.data for array in record.values()]
    out = record.to_numpy_ndarrays(keep_input=False)
    assert [array.ctypes.data for array in out] == addresses and len(record) == 0
    assert all(array.flags.writeable and array.flags.aligned for array in out)


def test_what_is_equal_by_chance_is_not_one_memory():
    source = {f"layer{i}.bias": np.zeros(3 * MIB, "f4") for i in range(3)} | {"other": np.zeros((3, MIB), "f4")}
    content = message(arrays=ArrayRecord(source))
    contents = sent(content)
    assert sum(len(found) > MIB for found in contents.values()) == 1 + 1 + 1 + 1  # two headers, zeros, two ends less one
    record = received(content, contents)["arrays"]
    assert record.ties() == [] and record.count_memory() == 4 * 12 * MIB
    tensors = record.to_torch_state_dict(keep_input=False)
    tensors["layer0.bias"] += 1
    assert all((tensor == 0).all() for name, tensor in tensors.items() if name != "layer0.bias")


def test_one_array_in_two_records_is_not_written_through():
    content = message(a=ArrayRecord({"x": np.zeros(3)}), b=ArrayRecord({"x": np.zeros(3), "y": np.ones(1)}))
    records = received(content, sent(content))
    (mine, _) = records["b"].to_numpy_ndarrays(keep_input=False)
    mine += 1
    assert (records["a"]["x"].numpy() == 0).all()


def test_chunks_of_stock_flower_land_too():
    array = Array(np.arange(2 * MIB))
    content, chunks = parts(array)
    assert Array.inflate(content, {name: StockChunk(chunk.data) for name, chunk in chunks.items()}) == array


@pytest.mark.parametrize("size", [1, 7, 64, 100, 128, 129, 1000])
def test_chunks_of_any_size(size):
    """A peer may cut elsewhere, even within the header."""
    array = Array(np.arange(100, dtype="i4"))
    data = array.data
    contents = [head("ArrayChunk", (), len(data[i : i + size])) + data[i : i + size] for i in range(0, len(data), size)]
    names = list(map(get_object_id, contents))
    unique = list(dict.fromkeys(names))
    fields = {"dtype": "int32", "shape": [100], "stype": "numpy.ndarray", "arraychunk_ids": [unique.index(n) for n in names]}
    body = json.dumps(fields).encode()
    chunks = {name: ArrayChunk.inflate(content) for name, content in zip(names, contents, strict=True)}
    back = Array.inflate(head("Array", unique, len(body)) + body, chunks)
    assert back.data == data and (back.numpy() == np.arange(100)).all()
    assert [chunk.data for chunk in chunks.values()] == list({n: data[i * size : (i + 1) * size] for i, n in enumerate(names)}.values())


@pytest.mark.parametrize(
    "dtype, shape, stype, data",
    [
        ("float32", (3,), "", b"serialized by somebody"),
        ("float32", (3,), "numpy.ndarray", b"not what it says"),
        ("float32", (3,), "numpy.ndarray", b""),
        ("int8", (4,), "numpy.ndarray", Array(np.zeros(3)).data),
        ("float64", (4,), "numpy.ndarray", Array(np.zeros(3)).data),
        ("float64", (3,), "numpy.ndarray", Array(np.zeros(3)).data[:-1]),
        ("float64", (3,), "numpy.ndarray", Array(np.zeros(3)).data + b"more"),
        ("something of the peer's", (3,), "numpy.ndarray", Array(np.zeros(3)).data),
    ],
)
def test_what_is_no_ndarray_comes_as_it_is(dtype, shape, stype, data):
    array = Array(dtype, shape, stype, data)
    back = Array.inflate(*parts(array))
    assert (back.dtype, back.shape, back.stype, back.data) == (dtype, shape, stype, data) and back.object_id == array.object_id


def change(fields: dict, content: bytes) -> bytes:
    start, body = content.split(b"\0", 1)
    body = json.dumps(json.loads(body) | fields).encode()
    return start.rsplit(b" ", 1)[0] + b" %d\0" % len(body) + body


@pytest.mark.parametrize(
    "fields",
    [
        {"arraychunk_ids": [0]},
        {"arraychunk_ids": [0, 1, 2]},
        {"arraychunk_ids": [0, -1]},
        {"arraychunk_ids": []},
        {"arraychunk_ids": [0, 1.0]},
        {"arraychunk_ids": None},
        {"arraychunk_ids": "01"},
        {"shape": None},
        {"shape": 3},
        {"shape": [-1]},
        {"shape": ["3"]},
        {"shape": "3"},
        {"dtype": ["int64"]},
        {"stype": None},
    ],
)
def test_an_array_that_does_not_fit_its_chunks(fields):
    content, chunks = parts(Array(np.arange(MIB)))
    assert len(chunks) == 2
    with pytest.raises(ValueError, match=r"got 2, or does not say where each belongs|not a deflated Array|negative size"):
        Array.inflate(change(fields, content), chunks)


def test_objects_of_the_wrong_kind():
    array = Array(np.zeros(3))
    content, chunks = parts(array)
    (chunk,) = chunks.values()
    record = ArrayRecord({"x": array})
    for wrong, said in (
        (lambda: Array.inflate(chunk.deflate(), {}), "expected an object of type Array, found ArrayChunk"),
        (lambda: Array.inflate(content, {}), "an Array of 1 chunks got 0"),
        (lambda: Array.inflate(content, {"0" * 64: chunk}), "an Array of 1 chunks got 1, or does not say where each belongs"),
        (lambda: Array.inflate(content, dict.fromkeys(chunks, array)), "an Array is made of ArrayChunks, got Array"),
        (lambda: Array.inflate(content.replace(b"{", b"[", 1), chunks), "Expecting ',' delimiter"),
        (lambda: ArrayChunk.inflate(content), "expected an object of type ArrayChunk, found Array"),
        (lambda: ArrayChunk.inflate(chunk.deflate(), {"0" * 64: chunk}), "an ArrayChunk has no children"),
        (lambda: ArrayRecord.inflate(content, {}), "expected an object of type ArrayRecord, found Array"),
        (lambda: ArrayRecord.inflate(record.deflate(), {}), "a record got 0 Arrays, which are not those that it names"),
        (lambda: ArrayRecord.inflate(record.deflate(), {array.object_id: chunk}), "key 'x': a value must be an Array, got ArrayChunk"),
        (lambda: ArrayRecord.inflate(record.deflate(), {array.object_id: array, "0" * 64: array}), "a record got 2 Arrays"),
        (lambda: ArrayRecord.inflate(head("ArrayRecord", (), 2) + b"[]", {}), "the JSON of an ArrayRecord is a list, not an object"),
        (lambda: ArrayRecord.inflate(head("ArrayRecord", (), 9) + b'{"x":[1]}', {}), "a record got 0 Arrays"),
        (
            lambda: ArrayRecord.inflate(head("ArrayRecord", (), 9) + '{"x":"0"}'.encode("utf-16"), {}),
            "the head of an ArrayRecord is not that of 20 bytes",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            wrong()


@pytest.mark.parametrize("kind", [Array, ArrayRecord])
def test_json_that_is_nested_too_deeply(kind):
    with pytest.raises(ValueError, match=f"the JSON of an {kind.__name__} is nested too deeply"):
        kind.inflate(head(kind.__name__, (), 200_000) + b"[" * 200_000, {})


@pytest.mark.parametrize("start", [b"ArrayChunk  4\0", b"ArrayChunk  03\0", b"ArrayChunk  +3\0", b"ArrayChunk a 3\0"])
def test_a_chunk_has_one_form_only(start):
    """Else its id would be that of what came, and another one that of what it says."""
    with pytest.raises(ValueError, match=r"the head of an ArrayChunk is not that of|an ArrayChunk has no children"):
        ArrayChunk.inflate(start + b"abc")
    with pytest.raises(ValueError, match=r"the head of an ArrayChunk is not that of|an ArrayChunk has no children"):
        Arrivals(["x"]).add("x", start + b"abc")
    assert ArrayChunk.inflate(b"ArrayChunk  3\0abc").data == b"abc"


def test_landings_that_are_given_up_count_as_memory(monkeypatch):
    """Each of these chunks says that all of the others belong to it, and an object that is none ends what it has begun."""
    taken = []
    monkeypatch.setattr(pulling, "Landing", lambda start, nbytes: taken.append(nbytes) or Landing(start, nbytes))
    contents = {}
    for i in range(20):
        start = npy_header(np.dtype("u1"), (CHUNK * (40 - 2 * i) - 128,))
        contents[f"chunk{i}"] = head("ArrayChunk", (), len(start)) + start
        contents[f"other{i}"] = head("Array", (), 2) + b"{}"
    arrivals = Arrivals(list(contents))
    for object_id, content in contents.items():
        arrivals.add(object_id, content)
    assert sum(taken) <= 40 * CHUNK


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    found = io.BytesIO()
    np.lib.format.write_array_header_1_0(found, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return found.getvalue()


def test_two_arrays_on_the_same_chunks_do_not_share_memory():
    """Two objects that say the same in other words."""
    array = Array(np.arange(MIB))
    content = array.deflate()
    start, body = content.split(b"\0", 1)
    other = start.rsplit(b" ", 1)[0] + b" %d\0" % (len(body) + 1) + body + b" "
    arrivals = Arrivals(list(array.children))
    for name, chunk in array.slice_array():
        arrivals.add(name, chunk.deflate())
    chunks = {name: ArrayChunk.inflate(arrivals.contents[name]) for name in array.children}
    record = ArrayRecord({"p": Array.inflate(content, chunks), "q": Array.inflate(other, chunks)})
    del chunks, arrivals
    assert record.ties() == []
    p, q = record.to_numpy_ndarrays(keep_input=False)
    p += 1
    assert (q == np.arange(MIB)).all()


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_corrupted_chunk(place):
    content = message(arrays=ArrayRecord({"x": np.arange(2 * MIB)}))
    contents = sent(content)
    name = [name for name, found in contents.items() if found.startswith(b"ArrayChunk")][1]
    body = contents[name].index(b"\0") + 1
    broken = bytearray(contents[name])
    broken[place if place < 0 else body + place] ^= 1
    contents[name] = bytes(broken)
    with pytest.raises(ValueError, match=rf"int64 of shape \(2097152,\)\) was corrupted on its way: chunk {name}"):
        received(content, contents)


def test_a_missing_object_is_flowers_own_error():
    content = message(arrays=ArrayRecord({"x": np.zeros(3)}))
    contents = sent(content)
    del contents[next(iter(contents))]
    with pytest.raises(KeyError):
        inflate_object_from_contents(content.object_id, contents)
