"""What type checkers make of records and Arrays. `# error: CODE` says what they have to find wrong with the line."""

from collections import OrderedDict
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any, Literal, assert_type

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from flatrecord import Array, ArrayRecord, ParametersRecord, array_from_numpy

Ownership = Literal["taken", "snapshot", "borrowed", "shared"]


def constructors(state_dict: dict[str, Tensor], arrays: list[NDArray[np.float32]], array: Array) -> None:
    assert_type(ParametersRecord(), ParametersRecord)
    assert_type(ParametersRecord({"a": np.zeros(3)}), ParametersRecord)
    assert_type(ParametersRecord(state_dict, keep_input=True), ParametersRecord)
    assert_type(ParametersRecord(OrderedDict(a=array), copy=False), ParametersRecord)
    assert_type(ParametersRecord({"a": np.zeros(3), "b": array, "c": state_dict["c"]}), ParametersRecord)
    assert_type(ParametersRecord(arrays), ParametersRecord)
    assert_type(ParametersRecord(ParametersRecord()), ParametersRecord)
    assert_type(ParametersRecord(nn.Linear(1, 1).state_dict()), ParametersRecord)
    assert_type(ParametersRecord.from_numpy_ndarrays([np.zeros(3)]), ParametersRecord)
    assert_type(ArrayRecord.from_numpy_ndarrays([np.zeros(3)], keep_input=False), ArrayRecord)
    assert_type(ArrayRecord.from_torch_state_dict(state_dict, copy=False), ArrayRecord)
    ParametersRecord(3)  # error: arg-type
    ParametersRecord("abc")  # error: arg-type
    ParametersRecord({1: np.zeros(3)})  # error: dict-item
    ParametersRecord({"a": 1.5})  # error: dict-item
    ParametersRecord({"a": [1.5]})  # error: dict-item
    ParametersRecord({}, "yes")  # error: arg-type
    ParametersRecord({}, False, True)  # error: call-arg
    ArrayRecord.from_torch_state_dict({"a": np.zeros(3)})  # error: dict-item


def mapping(record: ParametersRecord, array: Array, key: str) -> None:
    assert_type(record[key], Array)
    assert_type(record.get(key), Array | None)
    assert_type(record.get(key, 3), Array | int)
    assert_type(record.pop(key), Array)
    assert_type(record.pop(key, None), Array | None)
    assert_type(record.popitem(), tuple[str, Array])
    assert_type(record.setdefault(key, array), Array)
    assert_type(record.setdefault(key), Array)
    assert_type(list(record), list[str])
    assert_type(list(reversed(record)), list[str])
    assert_type(record.keys(), KeysView[str])
    assert_type(record.values(), ValuesView[Array])
    assert_type(record.items(), ItemsView[str, Array])
    assert_type(len(record), int)
    assert_type(key in record, bool)
    assert_type(record == {}, bool)
    assert_type(record.copy(), ParametersRecord)
    record[key] = array
    record.update({key: array})
    record.update([(key, array)])
    record.update(a=array)
    del record[key]
    record[key] = np.zeros(3)  # error: assignment
    record[0]  # error: index
    record.update(a=np.zeros(3))  # error: call-overload
    record.setdefault(key, 3)  # error: arg-type
    record | record  # error: operator


def out_again(record: ParametersRecord) -> None:
    assert_type(record.to_numpy_ndarrays(), list[NDArray[Any]])
    assert_type(record.to_torch_state_dict(keep_input=False), OrderedDict[str, Tensor])
    assert_type(record.count_bytes(), int)
    assert_type(record.count_memory(), int)
    assert_type(record.ties(), list[tuple[str, ...]])
    record.to_numpy_ndarrays(False)  # error: call-arg


class MyRecord(ParametersRecord):
    pass


class MyArray(Array):
    pass


def subclasses(record: MyRecord) -> None:
    assert_type(record.copy(), MyRecord)
    assert_type(MyRecord.from_numpy_ndarrays([np.zeros(3)]), MyRecord)
    assert_type(MyRecord.load("x"), MyRecord)
    assert_type(MyArray.from_numpy_ndarray(np.zeros(3)), MyArray)


def arrays(array: Array, tensor: Tensor) -> None:
    assert_type(Array(np.zeros(3)), Array)
    assert_type(Array(tensor, copy=True), Array)
    assert_type(Array(ndarray=np.zeros(3)), Array)
    assert_type(Array("float32", [3], "numpy.ndarray", b"abc"), Array)
    assert_type(Array("float32", (3,), "numpy.ndarray", memoryview(b"abc")), Array)
    assert_type(Array.from_torch_tensor(tensor), Array)
    assert_type(array_from_numpy(np.zeros(3)), Array)
    Array(b"abc")  # error: call-overload
    Array("float32", [3], "numpy.ndarray", "text")  # error: call-overload
    Array("float32")  # error: call-overload
    array_from_numpy([1.0])  # error: arg-type

    assert_type(array.numpy(), NDArray[Any])
    assert_type(np.asarray(array), NDArray[Any])
    assert_type(np.from_dlpack(array).nbytes, int)
    assert_type(array.torch(), Tensor)
    assert_type(array.chunks(), Iterator[memoryview])
    assert_type(array.segments(), tuple[memoryview, memoryview])
    assert_type(array.data, bytes)
    assert_type(memoryview(array), memoryview)
    assert_type(array.shape, list[int] | tuple[int, ...])
    assert_type(array.ownership, Ownership)
    array.shape = [3]  # error: misc
    array.ownership == "copied"  # error: comparison-overlap
