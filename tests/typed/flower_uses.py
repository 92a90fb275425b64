"""What type checkers make of Flower's classes on our storage, read as `core_uses.py`."""

from collections import OrderedDict
from collections.abc import ItemsView, ValuesView
from typing import Any, assert_type

import flwr.app
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import flatrecord
from flatrecord.flower import Array, ArrayRecord, ParametersRecord, from_flower, to_flower


def constructors(state_dict: dict[str, Tensor], ours: Array, theirs: flwr.app.Array, core: flatrecord.Array) -> None:
    assert_type(ArrayRecord(state_dict, copy=False), ArrayRecord)
    assert_type(ArrayRecord([np.zeros(3)], keep_input=False), ArrayRecord)
    assert_type(ArrayRecord({"a": ours, "b": theirs, "c": core, "d": np.zeros(3), "e": state_dict["e"]}), ArrayRecord)
    assert_type(ArrayRecord(numpy_ndarrays=[np.zeros(3)]), ArrayRecord)
    assert_type(ArrayRecord(torch_state_dict=state_dict), ArrayRecord)
    assert_type(ParametersRecord.from_array_dict({"a": theirs}), ParametersRecord)
    ArrayRecord(3)  # error: arg-type
    ArrayRecord({"a": 3})  # error: dict-item
    ArrayRecord(numpy_ndarrays=np.zeros(3))  # error: arg-type
    ArrayRecord(torch_state_dict={"a": np.zeros(3)})  # error: dict-item
    assert_type(Array(np.zeros(3)), Array)
    assert_type(Array(torch_tensor=state_dict["a"]), Array)
    assert_type(Array("float32", [3], "numpy.ndarray", b"abc"), Array)
    Array(3)  # error: arg-type


def mapping(record: ArrayRecord, theirs: flwr.app.Array, core: flatrecord.Array, key: str) -> None:
    assert_type(record[key], Array)
    assert_type(record.get(key), Array | None)
    assert_type(record.get(key, 3), Array | int)
    assert_type(record.pop(key), Array)
    assert_type(record.pop(key, None), Array | None)
    assert_type(record.popitem(), tuple[str, Array])
    assert_type(record.setdefault(key, theirs), Array)
    assert_type(record.values(), ValuesView[Array])
    assert_type(record.items(), ItemsView[str, Array])
    assert_type(list(record), list[str])
    assert_type(record.copy(), ArrayRecord)
    record[key] = theirs
    record[key] = core
    record.update({key: theirs})
    record.update([(key, core)], other=theirs)
    record[key] = np.zeros(3)  # error: assignment
    record.update({key: 3})  # error: arg-type


def out_again(record: ArrayRecord, array: Array) -> None:
    assert_type(record.to_numpy_ndarrays(), list[NDArray[Any]])
    assert_type(record.to_torch_state_dict(), OrderedDict[str, Tensor])
    assert_type(array.numpy(), NDArray[Any])
    assert_type(array.numpy(copy=False), NDArray[Any])
    assert_type(array.object_id, str)


def beside_flowers_own(record: ArrayRecord, theirs: flwr.app.ArrayRecord, core: flatrecord.ParametersRecord, array: Array) -> None:
    taken: flwr.app.ArrayRecord = record
    also_ours: flatrecord.ArrayRecord = record
    of_both: tuple[flwr.app.Array, flatrecord.Array] = (array, array)
    flwr.app.RecordDict({"arrays": record, "taken": taken})
    assert_type(to_flower(core), ArrayRecord)
    assert_type(to_flower(also_ours), ArrayRecord)
    assert_type(from_flower(record), flatrecord.ArrayRecord)
    assert_type(from_flower(theirs), flatrecord.ArrayRecord)
    to_flower({"a": of_both[0].numpy()})  # error: dict-item
