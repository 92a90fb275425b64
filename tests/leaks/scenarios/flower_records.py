"""Flower's classes on our storage: made, asked for ids, turned into Flower's own and back, pickled, consumed."""

import copy
import pickle
from collections import OrderedDict

import flwr.app
import numpy as np
import torch
from _measuring import refused, report, turn

import flatrecord
from flatrecord.flower import Array, ArrayRecord, ParametersRecord, from_flower, to_flower

HELD = np.arange(6.0)
STOCK = flwr.app.ArrayRecord([HELD, HELD])
CORE = flatrecord.ParametersRecord([HELD], keep_input=True)
TURNS = 500  # of a millisecond or more each


@turn(turns=TURNS)
def arrays():
    array = Array(HELD)
    Array("float64", (6,), "numpy.ndarray", array.data), Array(torch_tensor=torch.zeros(3)), Array(HELD, copy=False)
    array.object_id, array.is_dirty, array.children, array.slice_array()
    array.forget_ids()
    array.numpy(), array.numpy(copy=False), copy.copy(array), copy.deepcopy(array), pickle.loads(pickle.dumps(array))
    assert Array.inflate(array.deflate(), array.children) == array
    assert array == flwr.app.Array(HELD)


@turn(turns=TURNS)
def records():
    record = ArrayRecord([np.arange(3.0), HELD])
    ArrayRecord(STOCK), ArrayRecord(record, keep_input=False), ArrayRecord({"a": STOCK["0"], "b": HELD}, keep_input=False)
    ArrayRecord(numpy_ndarrays=[HELD]), ArrayRecord(torch_state_dict=OrderedDict(a=torch.zeros(3))), ParametersRecord()
    ArrayRecord.from_array_dict(OrderedDict(a=Array(HELD)))
    record = ArrayRecord([np.arange(3.0), HELD])
    record["stock"] = STOCK["0"]
    record.update(more=STOCK["1"])
    record.object_id, record.children, record.deflate()
    record.to_numpy_ndarrays(), record.to_torch_state_dict(), record.to_numpy_ndarrays(copy=False)
    pickle.loads(pickle.dumps(record)), copy.deepcopy(record)
    assert ArrayRecord.inflate(record.deflate(), record.children) == record
    record.to_numpy_ndarrays(keep_input=False)


@turn(turns=TURNS)
def there_and_back():
    from_flower(to_flower(CORE)), from_flower(STOCK), to_flower(STOCK)
    flower = to_flower(from_flower(STOCK))
    flower.to_numpy_ndarrays(keep_input=False)


@turn(turns=TURNS)
def refused_by_arrays():
    array = Array(HELD)
    content, children = array.deflate(), array.children
    (chunk,) = children.values()
    for wrong, those in (
        (b"ArrayChunk  0\0", children),
        (content[:-4], children),
        (content, {}),
        (content, {"0" * 64: chunk}),
        (content.replace(b"float64", b"float32"), {**children, "x": chunk}),
        (content, {next(iter(children)): CORE}),
    ):
        with refused(ValueError):
            Array.inflate(wrong, those)
    with refused(ValueError, "corrupted"):
        Array.inflate(content, {name: type(chunk)(memoryview(b"1234")) for name in children})
    with refused(AttributeError):
        array.dtype = "f4"
    with refused(TypeError):
        Array(torch_tensor=1)


@turn(turns=TURNS)
def refused_by_records():
    record = ArrayRecord([HELD])
    with refused(ValueError):
        ArrayRecord.inflate(record.deflate(), {})
    with refused(TypeError):
        ArrayRecord([HELD], numpy_ndarrays=[HELD])
    with refused(TypeError):
        record["a"] = 1
    with refused(TypeError):
        record.update({"a": STOCK["0"], "b": 1})
    with refused(ValueError):
        ArrayRecord({"a": STOCK["0"], "b": np.array([None])}, keep_input=False)
    assert len(record) == 1


report()
