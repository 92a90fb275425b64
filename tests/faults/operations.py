"""What people do with records, each on an input that is made anew, and what has to be true of that input afterwards.

An operation is made by a function that returns a `Case`. Whatever fails, all that stands in `Case.inputs` has to look
as before; and once the operation has come through, as after any other run of it. `shown` says how things look.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import OrderedDict, UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from flatrecord import Array, ParametersRecord

MIB = 1 << 20
SWAPPED = np.dtype(">i4")  # the same each time, as headers are kept by dtype


@dataclass
class Case:
    """One run of an operation."""

    run: Callable[[], object]
    inputs: tuple[Any, ...] = ()
    in_python: bool = False  # what is run is Python code: its result is lost if an interrupt comes when all is done
    whole: Callable[[BaseException], object] | None = None  # checks the inputs after a failure, in place of the usual
    again: bool = True  # it can be tried again on the same input


@dataclass(frozen=True)
class Operation:
    name: str
    make: Callable[[], Case]
    threads: bool = False  # of Python's, which do not survive that there is no memory to start them
    errors: tuple[str, ...] = ()  # what libraries say in place of the error: its type, or words of it
    maps: bool = False  # a file, which stays open where CPython 3.11 loses what it had in hand
    apart: bool = False  # without memory for small objects, others' code may end the process


class Folder:
    """A folder and what is in it, which may be as before or as after whatever happens, and nothing in between."""

    def __init__(self, path: str) -> None:
        self.path = path

    def put(self, files: Mapping[str, bytes]) -> None:
        """Let these files be all that is there."""
        for name in os.listdir(self.path):
            os.unlink(os.path.join(self.path, name))
        for name, data in files.items():
            with open(os.path.join(self.path, name), "wb") as file:
                file.write(data)

    def contents(self) -> dict[str, bytes]:
        found = {}
        for name in sorted(os.listdir(self.path)):
            with open(os.path.join(self.path, name), "rb") as file:
                found[name] = file.read()
        return found


def shown(value: Any) -> Any:
    """How a thing looks from outside, to be compared."""
    if isinstance(value, Array):
        return type(value).__name__, value.dtype, tuple(value.shape), value.stype, value.data
    if isinstance(value, np.ndarray):
        return "ndarray", value.dtype.str, value.shape, value.tobytes(), value.flags.writeable
    if isinstance(value, ParametersRecord):
        return type(value).__name__, [(key, shown(array), array.ownership) for key, array in value.items()], value.ties()
    if isinstance(value, Mapping):
        return type(value).__name__, [(key, shown(item)) for key, item in value.items()], overlaps(list(value.values()))
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [shown(item) for item in value], overlaps(list(value))
    if isinstance(value, (memoryview, bytes, bytearray)):
        return bytes(value)
    if isinstance(value, Folder):
        return value.contents()
    if type(value).__name__ in ("Tensor", "Parameter"):
        # An inference tensor must not be written to. What had to be copied may come back without a view's conjugation.
        writable = not value.is_inference()
        torch = sys.modules["torch"]
        plain = value.detach().resolve_conj().resolve_neg().contiguous()
        # A parameter that had to be copied comes back as a tensor.
        return "Tensor", str(value.dtype), tuple(value.shape), plain.view(-1).view(torch.uint8).numpy().tobytes(), writable
    if type(value).__name__ == "ArrayChunk":
        return bytes(value.data)
    return value


def overlaps(values: list[Any]) -> list[tuple[int, int]]:
    """Which of some arrays or tensors share memory."""
    spans = []
    for i, value in enumerate(values):
        if isinstance(value, np.ndarray) and value.nbytes:
            spans.append((*np.lib.array_utils.byte_bounds(value), i))
        elif type(value).__name__ in ("Tensor", "Parameter"):
            storage = value.untyped_storage()
            spans.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes(), i))
    return [(i, j) for start, end, i in spans for other, stop, j in spans if i < j and start < stop and other < end]


# ------------------------------------------------------------------------------------------ inputs


def plain() -> dict[str, Any]:
    return {f"layer{i}": np.full(5, i, "f4") for i in range(4)}


def views() -> dict[str, Any]:
    base = np.arange(50.0)
    return {"first": base[1:], "second": base[:-1], "other": np.ones(3)}


def tied() -> dict[str, Any]:
    array = np.arange(7.0)
    return {"a": array, "b": np.ones(2), "c": array, "d": np.arange(12.0)[::3], "e": np.arange(6.0).reshape(2, 3).T}


def arrays() -> dict[str, Any]:
    same = Array(np.arange(9.0))
    return {"x": same, "y": same, "z": Array(np.ones((2, 2))), "own": Array("text", [1], "mine", b"payload")}


def mixed() -> dict[str, Any]:
    fixed = np.frombuffer(bytes(range(24)), "u1")
    return {"a": np.arange(3.0), "fixed": fixed, "part": fixed[4:], "b": Array(np.ones(2)), "old": np.arange(4, dtype=SWAPPED)}


def large() -> dict[str, Any]:
    """Blocks of our own that are mappings: one is copied as it is, one transposed, one taken."""
    array = np.arange(MIB, dtype="u1")
    return {"held": array[:], "turned": np.zeros((1200, 1024), "u1").T, "free": np.ones(MIB, "u1"), "again": array}


ENTRIES = {function.__name__: function for function in (plain, views, tied, arrays, mixed, large)}
CONTAINERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ordered": OrderedDict,
    "user": UserDict,
    "list": lambda entries: list(entries.values()),
    "record": lambda entries: ParametersRecord({key: Array(value) for key, value in entries.items()}),
}
BOTH = (False, True)
COPY = (None, True, False)


def recorded(entries: Callable[[], dict[str, Any]], cls: Any = ParametersRecord) -> Any:
    """A record of such entries, as untouched as it can be."""
    return cls(entries(), keep_input=False)


# -------------------------------------------------------------------------------- Arrays and records


def entering(
    container: Callable[[], Any], keep_input: bool, copy: bool | None, cls: Any = ParametersRecord, in_python: bool = False
) -> Case:
    source, record = container(), cls.__new__(cls)
    return Case(partial(cls.__init__, record, source, keep_input, copy=copy), (source, record), in_python)


def method(make: Callable[[], Any], name: str, *arguments: Any, in_python: bool = False, **options: Any) -> Case:
    """Call a method of a record that `make` makes."""
    record = make()
    return Case(partial(getattr(record, name), *arguments, **options), (record,), in_python)


def on_array(make: Callable[[], Any], call: Callable[[Any], Callable[[], object]]) -> Case:
    array = make()
    return Case(call(array), (array,))


def written(size: int) -> Case:
    import io

    array = Array(np.arange(size, dtype="u1"))

    def run() -> bytes:
        file = io.BytesIO()
        array.write_to(file)
        return file.getvalue()

    return Case(run, (array,), in_python=True)


def made_of_data(copy: bool | None, wrap: Callable[[bytes], Any]) -> Case:
    data = wrap(Array(np.arange(4.0)).data)
    return Case(partial(Array, "float64", [4], "numpy.ndarray", data, copy=copy), (data,))


def pickled(make: Callable[[], Any], protocol: int) -> Case:
    import pickle

    value = make()
    return Case(partial(pickle.dumps, value, protocol), (value,))


def unpickled(make: Callable[[], Any], protocol: int) -> Case:
    import pickle

    data = pickle.dumps(make(), protocol)
    return Case(partial(pickle.loads, data), (data,))


def copied(make: Callable[[], Any], function: str) -> Case:
    import copy

    value = make()
    return Case(partial(getattr(copy, function), value), (value,), in_python=True)


def updated(how: str) -> Case:
    record = recorded(plain)
    more = {"layer1": Array(np.zeros(2)), "new": Array(np.ones(2))}
    given = {"mapping": more, "pairs": list(more.items()), "record": recorded(arrays)}[how]
    return Case(partial(record.update, given), (record, given))


def core_operations() -> list[Operation]:
    small, fortran = partial(np.arange, 6.0), lambda: np.arange(6.0).reshape(2, 3).T
    strided, big = (lambda: np.arange(12.0)[::3]), lambda: np.ones(MIB, "u1")
    found = [
        *(Operation(f"enter {name} {keep} {copy}", partial(entering, entries, keep, copy))
          for name, entries in ENTRIES.items() for keep in BOTH for copy in COPY
          if copy is not False or name not in ("tied", "large")),  # strided arrays cannot be borrowed
        *(Operation(f"enter {kind} {keep}", partial(entering, lambda wrap=wrap: wrap(views()), keep, None))
          for kind, wrap in CONTAINERS.items() for keep in BOTH),
        *(Operation(f"leave {name} {keep} {copy}",
                    partial(method, partial(recorded, entries), "to_numpy_ndarrays", keep_input=keep, copy=copy))
          for name, entries in ENTRIES.items() for keep in BOTH for copy in COPY
          if name not in ("arrays", "mixed") and (keep or copy is not False or name == "plain")),
        *(Operation(f"Array {name} {copy}", lambda make=make, copy=copy: on_array(make, lambda array: partial(Array, array, copy=copy)))
          for name, make in (("small", small), ("fortran", fortran), ("strided", strided), ("large", big)) for copy in COPY
          if name != "strided" or copy is not False),
        *(Operation(f"Array of {wrap.__name__} {copy}", partial(made_of_data, copy, wrap))
          for wrap in (bytes, bytearray, memoryview) for copy in COPY),
        *(Operation(f"numpy {copy}", lambda copy=copy: on_array(lambda: Array(fortran()), lambda array: partial(array.numpy, copy)))
          for copy in COPY),
        Operation("numpy large", lambda: on_array(lambda: Array(big()), lambda array: partial(array.numpy, True))),
        Operation("data", lambda: on_array(lambda: Array(small()), lambda array: partial(getattr, array, "data"))),
        Operation("data large", lambda: on_array(lambda: Array(big()), lambda array: partial(getattr, array, "data"))),
        Operation("segments", lambda: on_array(lambda: Array(small()), lambda array: array.segments)),
        Operation("chunks", lambda: on_array(lambda: Array(small()), lambda array: lambda: list(array.chunks(50)))),
        Operation("asarray", lambda: on_array(lambda: Array(small()), lambda array: partial(np.asarray, array))),
        Operation("buffer", lambda: on_array(lambda: Array(small()), lambda array: partial(memoryview, array))),
        Operation("dlpack", lambda: on_array(lambda: Array(small()), lambda array: partial(np.from_dlpack, array))),
        Operation("equal", lambda: on_array(lambda: Array(small()), lambda array: partial(array.__eq__, Array(small())))),
        Operation("repr", lambda: on_array(lambda: Array(small()), lambda array: partial(repr, array))),
        Operation("write_to", partial(written, 100)),
        Operation("write_to large", partial(written, MIB)),
        *(Operation(f"pickle {protocol}", partial(pickled, partial(recorded, views), protocol), errors=("PicklingError",))
          for protocol in (2, 5)),
        *(Operation(f"unpickle {protocol}", partial(unpickled, partial(recorded, views), protocol)) for protocol in (2, 5)),
        *(Operation(f"{function} {name}", partial(copied, make, function)) for function in ("copy", "deepcopy")
          for name, make in (("record", partial(recorded, tied)), ("array", lambda: Array(small())))),
        *(Operation(f"update {how}", partial(updated, how)) for how in ("mapping", "pairs", "record")),
        Operation("from_numpy_ndarrays", lambda: from_list(False)),
        Operation("from_numpy_ndarrays kept", lambda: from_list(True)),
        Operation("setdefault", lambda: method(partial(recorded, plain), "setdefault", "new", Array(np.ones(2)))),
        Operation("set", lambda: method(partial(recorded, plain), "__setitem__", "new", Array(np.ones(2)))),
        Operation("pop", lambda: method(partial(recorded, plain), "pop", "layer1")),
        Operation("popitem", lambda: method(partial(recorded, plain), "popitem")),
        Operation("delete", lambda: method(partial(recorded, plain), "__delitem__", "layer2")),
        Operation("clear", lambda: method(partial(recorded, plain), "clear")),
        Operation("record ==", lambda: method(partial(recorded, plain), "__eq__", recorded(plain))),
        Operation("record == dict", lambda: method(partial(recorded, plain), "__eq__", dict(recorded(plain)))),
        Operation("record repr", lambda: method(partial(recorded, mixed), "__repr__")),
        *(Operation(f"{name} {kind}", lambda name=name, entries=entries: method(partial(recorded, entries), name))
          for name in ("count_bytes", "count_memory", "ties") for kind, entries in (("tied", tied), ("views", views))),
    ]  # fmt: skip
    return found


def from_list(keep_input: bool) -> Case:
    # The record that it makes is its result: what is lost with that, no input can tell.
    source = list(views().values())
    return Case(partial(ParametersRecord.from_numpy_ndarrays, source, keep_input=keep_input), (source,))


# ------------------------------------------------------------------------------------------- torch


TORCH = ("OutOfMemoryError", "RuntimeError")  # torch's words for it


def torch_operations() -> list[Operation]:
    import torch

    def tensors() -> dict[str, Any]:
        return {"a": torch.arange(4.0), "b": torch.ones(2, 3, dtype=torch.bfloat16), "c": torch.zeros(3)}

    def tied_tensors() -> dict[str, Any]:
        base = torch.arange(12.0)
        return {"x": base, "y": base, "part": base[3:], "turned": torch.ones(3, 2).T, "last": torch.nn.Parameter(torch.ones(2))}

    def converted() -> dict[str, Any]:
        numbers = torch.ones(4, dtype=torch.complex64)
        return {"plain": torch.ones(2), "conjugate": numbers.conj(), "same": numbers.conj(), "array": np.arange(3.0)}

    entries = {function.__name__: function for function in (tensors, tied_tensors, converted)}

    def model_of(make: Callable[[], dict[str, Any]]) -> Any:
        state = OrderedDict(make())
        state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]  # as torch gives it to state_dicts
        return state

    def array(make: Callable[[], Any]) -> Case:
        tensor = make()
        return Case(partial(Array, tensor), (tensor,))

    found = [
        *(Operation(f"enter {name} {keep} {copy}", partial(entering, partial(model_of, make), keep, copy))
          for name, make in entries.items() for keep in BOTH for copy in COPY if copy is not False or name == "tensors"),
        *(Operation(f"leave {name} {keep} {copy}",
                    partial(method, partial(recorded, partial(model_of, make)), "to_torch_state_dict", keep_input=keep, copy=copy))
          for name, make in entries.items() for keep in BOTH for copy in (None, True)),
        Operation("leave as ndarrays", partial(method, partial(recorded, tied_tensors), "to_numpy_ndarrays", keep_input=False)),
        Operation("ndarrays leave as tensors", partial(method, partial(recorded, views), "to_torch_state_dict", keep_input=False)),
        Operation("Array", partial(array, lambda: torch.arange(4.0))),
        Operation("Array conjugate", partial(array, lambda: torch.ones(4, dtype=torch.complex64).conj())),
        *(Operation(f"torch {copy}", lambda copy=copy: on_array(lambda: Array(np.ones(3)), lambda array: partial(array.torch, copy)))
          for copy in COPY),
    ]  # fmt: skip
    return [replace(operation, errors=TORCH, apart="leave" in operation.name or "torch" in operation.name) for operation in found]


# ------------------------------------------------------------------------------------------- files


def odd() -> dict[str, Any]:
    """What the format has no dtype for, is not in its order, or is empty.

    No dtype but NumPy's plain ones: to find any other in a dict where there is no memory ends the process, in NumPy.
    """
    return {"wide": np.arange(3, dtype="c16"), "turned": np.arange(6.0).reshape(2, 3).T, "none": np.zeros((0, 2))}


def several() -> dict[str, Any]:
    """More than one batch: PIECE is made small by those who run this."""
    return {f"layer{i}": np.full(3000, i, "u1") for i in range(4)}


OLD = {"model.safetensors": b"what was there before"}


def saved(folder: Folder, entries: Callable[[], dict[str, Any]], keep_input: bool, checksum: bool) -> Case:
    from flatrecord.safetensors import save

    folder.put(OLD)
    record = recorded(entries)
    path = os.path.join(folder.path, "model.safetensors")
    run = partial(save, record, path, keep_input=keep_input, checksum=checksum)
    if keep_input:
        return Case(run, (record, folder), in_python=True)
    wanted = [(name, array.tolist()) for name, array in entries().items()]

    def check(error: BaseException) -> None:
        # Some show the unfinished file, in the order of axes that it has.
        assert [(name, array.numpy().tolist()) for name, array in record.items()] == wanted, "the record is changed"
        found = folder.contents()
        assert found == OLD or (list(found) == list(OLD) and len(found["model.safetensors"]) > 200), "the folder is changed"
        save(record, path, keep_input=False, checksum=checksum)
        assert len(record) == 0, "the next try has left something"

    return Case(run, (record, folder), in_python=True, whole=check, again=False)


def sharded(folder: Folder) -> str:
    """A checkpoint in two files."""
    import json

    from flatrecord.safetensors import save

    folder.put({})
    for name, entries in (("a.safetensors", several()), ("b.safetensors", odd())):
        save(entries, os.path.join(folder.path, name), checksum=True)
    places = {**dict.fromkeys(several(), "a.safetensors"), **dict.fromkeys(odd(), "b.safetensors")}
    path = os.path.join(folder.path, "model.safetensors.index.json")
    with open(path, "w") as file:
        json.dump({"weight_map": places}, file)
    return path


def from_file(folder: Folder, name: str, **options: Any) -> Case:
    import flatrecord.safetensors

    path = sharded(folder)
    function = getattr(flatrecord.safetensors, name)
    return Case(lambda: function(path, **options), (folder,), in_python=True)


def verified(folder: Folder) -> Case:
    from flatrecord.safetensors import load

    record = load(sharded(folder))
    return Case(partial(record.verify, contents=True), (record, folder), in_python=True)


class Kept:
    """A stream of bytes. BytesIO loses all that it has where there is no memory for more."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: memoryview) -> int:
        self.pieces.append(bytes(data))
        return len(data)


def sent(keep_input: bool) -> Case:
    from flatrecord.safetensors import write

    record, stream = recorded(several), Kept()
    wanted = shown(recorded(several))[1]
    whole = shown(record)

    def check(error: BaseException) -> None:
        if keep_input:
            assert shown(record) == whole
        else:
            left = shown(record)[1]
            assert left == wanted[len(wanted) - len(left) :]  # in the file's order, which is the record's
            gone = [np.full(3000, i, "u1").tobytes() for i in range(len(wanted) - len(left))]
            assert all(data in b"".join(stream.pieces) for data in gone)
            assert not gone or any("had been sent" in note for note in getattr(error, "__notes__", ())), "no note says what is gone"

    return Case(partial(write, record, stream, keep_input=keep_input), (record,), in_python=True, whole=check, again=keep_input)


def through(kind: str) -> Case:
    """A record goes through a pipe or a pair of sockets, whose buffers hold all of it."""
    import socket

    from flatrecord.safetensors import read, write

    def pair() -> Any:
        if kind == "socket":
            return socket.socketpair()
        return [open(end, mode, buffering=0) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True)]

    record, pairs = recorded(several), [pair(), pair()]  # for the try, and the next one

    def run() -> object:
        source, target = pairs.pop()
        with source, target:
            write(record, target)
            return read(source)

    return Case(run, (record,), in_python=True)


def received() -> Case:
    import io

    from flatrecord.safetensors import read, write

    stream = io.BytesIO()
    write({**several(), **odd()}, stream)

    def run() -> object:
        stream.seek(0)
        return read(stream)

    return Case(run, (stream.getvalue(),), in_python=True)


def converted_file(folder: Folder, kind: str) -> Case:
    from flatrecord.convert import convert
    from flatrecord.safetensors import save

    source = os.path.join(folder.path, "source.safetensors")
    folder.put({f"model.{kind}": b"what was there before"})
    save(odd(), source)
    return Case(partial(convert, source, os.path.join(folder.path, f"model.{kind}")), (folder,), in_python=True)


# What locks, zipfile and OpenSSL say where there is no memory or they are interrupted; and what verify says of any error.
LIBRARIES = (
    "RuntimeError",
    "ValueError: Can't close the ZIP file",
    "ValueError: [digital envelope routines]",
    "cannot be found any more: Input",
)


def file_operations(folder: Folder) -> list[Operation]:
    found = [
        *(Operation(f"save {entries.__name__} {keep} {checksum}", partial(saved, folder, entries, keep, checksum), threads=checksum)
          for entries in (several, odd) for keep in BOTH for checksum in BOTH),
        *(Operation(f"load {mmap}", partial(from_file, folder, "load", mmap=mmap), maps=mmap) for mmap in BOTH),
        Operation("inspect", partial(from_file, folder, "inspect")),
        Operation("verify", partial(verified, folder), threads=True, maps=True),
        *(Operation(f"write {keep}", partial(sent, keep)) for keep in BOTH),
        Operation("read", received),
        *(Operation(f"through a {kind}", partial(through, kind)) for kind in ("pipe", "socket")),
        Operation("convert to npz", partial(converted_file, folder, "npz"), maps=True),
        Operation("convert to safetensors", partial(converted_file, folder, "safetensors"), maps=True),
    ]  # fmt: skip
    return [replace(operation, apart=True, errors=LIBRARIES) for operation in found]


# ------------------------------------------------------------------------------------------- Flower


def flower_operations() -> list[Operation]:
    from flower.peer import message, pulled, sent as pushed
    from flwr.app import Array as StockArray
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute

    from flatrecord.flower import Array as OurArray, ArrayChunk, ArrayRecord, from_flower, to_flower
    from flatrecord.flower.pushing import push_objects

    def stock() -> dict[str, Any]:
        array = Array(np.arange(5.0))
        return {"a": StockArray(array.dtype, (5,), array.stype, array.data), "b": np.ones(2), "c": Array(np.zeros(3))}

    def ours() -> Any:
        return recorded(lambda: {"a": np.arange(5.0), "b": np.ones((2, 3))}, ArrayRecord)

    def fresh(make: Callable[[], Any], call: Callable[[Any], object]) -> Case:
        value = make()
        return Case(partial(call, value), (value,), in_python=True)

    def in_chunks() -> tuple[bytes, dict[str, ArrayChunk]]:
        array = OurArray(np.arange(700.0))
        return array.deflate(), {name: ArrayChunk.inflate(chunk.deflate()) for name, chunk in array.slice_array()}

    def inflated() -> Case:
        content, chunks = in_chunks()
        return Case(lambda: OurArray.inflate(content, chunks), tuple(chunks.values()), in_python=True)

    def record_inflated() -> Case:
        record = ours()
        content, children = record.deflate(), record.children
        return Case(lambda: ArrayRecord.inflate(content, children), tuple(children.values()), in_python=True)

    def push(keep: bool, consumable: bool) -> Case:
        record = ours()
        record.consumable = consumable
        whole = message(arrays=record)
        contents: dict[str, bytes] = {}
        whole.metadata.__dict__["_message_id"] = whole.object_id
        with no_object_id_recompute():
            objects = get_all_nested_objects(whole)

        def run() -> object:
            with no_object_id_recompute():
                push_objects(objects, contents.__setitem__, keep_objects=keep)
            return dict(sorted(contents.items()))

        wanted = shown(ours())

        def check(error: BaseException) -> None:
            found = shown(record)
            assert found == wanted or (consumable and all(entry in wanted[1] for entry in found[1]))

        return Case(run, (record,), in_python=True, whole=check, again=keep and not consumable)

    def pull() -> Case:
        whole = message(arrays=ours())
        contents = pushed(whole)
        return Case(lambda: pulled(whole, contents)["arrays"], (dict(contents),), in_python=True)

    found = [
        *(Operation(f"enter {make.__name__} {keep} {copy}", partial(entering, make, keep, copy, ArrayRecord, True))
          for make in (plain, arrays) for keep in BOTH for copy in (None, True)),
        # Those of Flower's own are shared, and leave the input when the record is made already, which is lost if that fails.
        *(Operation(f"enter stock {keep} {copy}",
                    partial(fresh, stock, lambda source, keep=keep, copy=copy: ArrayRecord(source, keep, copy=copy)))
          for keep in BOTH for copy in (None, True)),
        *(Operation(f"leave {keep}", partial(method, ours, "to_numpy_ndarrays", in_python=True, keep_input=keep)) for keep in BOTH),
        *(Operation(f"leave as tensors {keep}", partial(method, ours, "to_torch_state_dict", in_python=True, keep_input=keep))
          for keep in BOTH),
        Operation("to_flower", partial(fresh, partial(recorded, tied), to_flower)),
        Operation("from_flower", partial(fresh, ours, from_flower)),
        Operation("object_id", partial(fresh, ours, lambda record: record.object_id)),
        Operation("deflate", partial(fresh, ours, lambda record: record.deflate())),
        Operation("children", partial(fresh, ours, lambda record: list(record.children))),
        Operation("slice_array",
                  partial(fresh, lambda: OurArray(np.ones(700)), lambda array: [chunk.deflate() for _, chunk in array.slice_array()])),
        Operation("inflate an array", inflated),
        Operation("inflate a record", record_inflated),
        Operation("set", partial(fresh, ours, lambda record: record.update({"a": stock()["a"]}))),
        *(Operation(f"push {keep} {consumable}", partial(push, keep, consumable), threads=True) for keep in BOTH
          for consumable in BOTH),
        Operation("pull", pull, threads=True),
    ]  # fmt: skip
    return [replace(operation, apart=True, errors=(*TORCH, *LIBRARIES, "DecodeError")) for operation in found]


# ---------------------------------------------------------------------------------------- controls

KEPT: list[object] = []  # by a control that leaks


def control_operations(folder: Folder) -> list[Operation]:
    """Operations that are wrong, each in one way, which a sweep has to notice."""

    def losing() -> Case:
        source = plain()

        def run() -> object:
            value = source.pop("layer1")
            made = [float(value[0])] * 40 + [object(), *range(1000, 1010)]
            source["layer1"] = value
            source.update({key: source.pop(key) for key in ("layer2", "layer3")})  # the old order
            return len(made)

        return Case(run, (source,))

    def leaking() -> Case:
        def run() -> object:
            try:
                return len([object() for _ in range(20)])
            except BaseException:
                KEPT.extend(range(len(KEPT) + 10**6, len(KEPT) + 10**6 + 5))
                raise

        return Case(run)

    def leaving_open() -> Case:
        def run() -> object:
            descriptor = os.open("/dev/null", os.O_RDONLY)
            found = len([object() for _ in range(20)])
            os.close(descriptor)
            return found

        return Case(run)

    def lying() -> Case:
        def run() -> object:
            try:
                return [object() for _ in range(20)] and 1
            except BaseException:
                return 2

        return Case(run)

    def complaining() -> Case:
        def run() -> object:
            try:
                return len([object() for _ in range(20)])
            except BaseException as error:
                raise LookupError("not what it is") from error

        return Case(run)

    def littering() -> Case:
        folder.put(OLD)

        def run() -> object:
            with open(os.path.join(folder.path, "new"), "wb", buffering=0) as file:
                return file.write(b"half of it") + file.write(b"the rest")

        return Case(run, (folder,))

    return [Operation(function.__name__, function) for function in (littering, losing, leaking, leaving_open, lying, complaining)]


def operations(group: str, folder: str) -> list[Operation]:
    """The operations of a group, with what they need imported."""
    if group in ("files", "controls"):
        return {"files": file_operations, "controls": control_operations}[group](Folder(folder))
    return {"core": core_operations, "torch": torch_operations, "flower": flower_operations}[group]()


def settle() -> None:
    """Let the collector look only at what comes from now on."""
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(0.005)
