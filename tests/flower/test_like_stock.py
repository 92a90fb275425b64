"""Flower's own classes and ours, side by side: the same ids, the same bytes, the same answers."""

import copy
import dataclasses
import pickle
import subprocess
import sys

import flwr.app
import flwr.common
import numpy as np
import pytest
import torch
from arrays import filled, npy
from flower.peer import message, received, received_by_stock, sent
from flwr.app import ConfigRecord, Context, MetricRecord, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto
from flwr.supercore.inflatable.inflatable_object import get_object_tree

import flatrecord
from flatrecord.flower import Array, ArrayChunk, ArrayRecord, ParametersRecord, from_flower, to_flower

MIB = 1 << 20


def ndarrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "weight": rng.standard_normal((3 * MIB // 2, 2)).astype("f4"),  # three chunks, with one header
        "größe": np.asfortranarray(rng.standard_normal((7, 5))),
        "zeros": np.zeros(3 * MIB, "f4"),  # the same chunk twice
        "zeros again": np.zeros(3 * MIB, "f4"),  # the same object id
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 3), "i8"),
        "big-endian": np.arange(5, dtype=">f4"),
        "edge": np.zeros(5 * MIB - 128, "u1"),  # header and payload are one whole chunk
    }


def stock(source: dict[str, np.ndarray]) -> flwr.app.ArrayRecord:
    record = flwr.app.ArrayRecord({key: flwr.app.Array(value) for key, value in source.items()})
    assert not isinstance(record, flatrecord.ArrayRecord)
    return record


def test_the_same_wire():
    theirs, ours = stock(ndarrays()), ArrayRecord(ndarrays(), keep_input=False)
    assert ours.object_id == theirs.object_id and ours.deflate() == theirs.deflate()
    assert list(ours.children) == list(theirs.children)
    for key, array in theirs.items():
        mine = ours[key]
        assert mine.object_id == array.object_id and mine.deflate() == array.deflate()
        assert list(mine.children) == list(array.children)
        chunks = list(zip(mine.slice_array(), array.slice_array(), strict=True))
        for (my_id, my_chunk), (their_id, their_chunk) in chunks:
            assert my_id == their_id == my_chunk.object_id == their_chunk.object_id
            assert my_chunk.deflate() == their_chunk.deflate() and my_chunk.data == their_chunk.data
    other = {"config": ConfigRecord({"lr": 0.1}), "metrics": MetricRecord({"loss": 1.5})}
    assert message(arrays=ours, **other).object_id == message(arrays=theirs, **other).object_id
    assert get_object_tree(message(arrays=ours)) == get_object_tree(message(arrays=theirs))
    assert sent(message(arrays=ours, **other)) == sent(message(arrays=theirs, **other))


def test_every_dtype_and_layout_has_stock_flowers_ids(dtype, layout):
    array = layout(dtype)
    ours = Array(array)
    theirs = flwr.app.Array(ours.dtype, tuple(ours.shape), ours.stype, npy(array))
    assert ours.object_id == theirs.object_id
    (back,) = received(message(r=ArrayRecord({"x": ours})), sent(message(r=ArrayRecord({"x": ours})))).values()
    assert back["x"] == ours and back["x"].numpy().tobytes() == np.asarray(array).tobytes()
    assert back["x"].numpy().dtype == array.dtype


def test_a_stock_peer_gets_what_numpy_can_read():
    source = ndarrays() | {"bfloat16": torch.ones(3, dtype=torch.bfloat16), "float8": torch.ones(2, dtype=torch.float8_e4m3fn)}
    expected = {key: Array(value) for key, value in source.items()}
    content = message(arrays=ArrayRecord(source))
    found = received_by_stock(content, sent(content))["arrays"]
    assert found == {key: (array.dtype, tuple(array.shape), array.stype, array.data) for key, array in expected.items()}
    back = received(content, sent(content))["arrays"].to_torch_state_dict
    with pytest.raises(TypeError, match="big-endian"):
        back()
    del content.content["arrays"]["big-endian"]
    tensors = received(content, sent(content))["arrays"].to_torch_state_dict()
    assert tensors["bfloat16"].dtype == torch.bfloat16 and tensors["float8"].dtype == torch.float8_e4m3fn
    assert (tensors["bfloat16"] == 1).all()


def test_instances_of_both():
    record = ArrayRecord({"x": np.zeros(3)})
    assert isinstance(record, flwr.app.ArrayRecord) and isinstance(record, flatrecord.ArrayRecord)
    assert isinstance(record["x"], flwr.app.Array) and isinstance(record["x"], flatrecord.Array)
    assert isinstance(ParametersRecord(), flwr.common.ParametersRecord) and isinstance(ParametersRecord(), ArrayRecord)
    ((_, chunk),) = record["x"].slice_array()
    assert type(chunk) is ArrayChunk and ArrayChunk.__qualname__ == "ArrayChunk"


def test_flowers_constructors():
    x = np.arange(6.0).reshape(2, 3)
    t = torch.arange(6.0).reshape(2, 3)
    data = npy(x)
    for array in (
        Array(x),
        Array(ndarray=x),
        Array("float64", (2, 3), "numpy.ndarray", data),
        Array(dtype="float64", shape=(2, 3), stype="numpy.ndarray", data=data),
        Array.from_numpy_ndarray(x),
    ):
        assert array == flwr.app.Array(x) and type(array) is Array
    for array in (Array(t), Array(torch_tensor=t), Array.from_torch_tensor(t)):
        assert array == flwr.app.Array(t) and type(array) is Array
    assert Array("float64", (2, 3), "numpy.ndarray", data).data is data
    expected = flwr.app.ArrayRecord([x, x])
    for record in (
        ArrayRecord([x, x]),
        ArrayRecord(numpy_ndarrays=[x, x]),
        ArrayRecord.from_numpy_ndarrays([x, x]),
        ArrayRecord({"0": Array(x), "1": flwr.app.Array(x)}),
        ArrayRecord(array_dict={"0": Array(x), "1": x}),
        ArrayRecord.from_array_dict({"0": Array(x), "1": flwr.app.Array(x)}),
        ParametersRecord([x, x]),
    ):
        assert record == expected and expected == record
        assert all(type(array) is Array for array in record.values())
    state_dict = {"w": t, "b": t}
    for record in (
        ArrayRecord(state_dict),
        ArrayRecord(torch_state_dict=state_dict),
        ArrayRecord.from_torch_state_dict(state_dict),
    ):
        assert record == flwr.app.ArrayRecord(state_dict)
    assert ArrayRecord() == flwr.app.ArrayRecord() and len(ArrayRecord({})) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: Array(x, ndarray=x),
        lambda x: Array(x, torch_tensor=torch.ones(1)),
        lambda x: Array(torch_tensor=x),
        lambda x: Array("float64", (2,), "numpy.ndarray"),
        lambda x: ArrayRecord([x], numpy_ndarrays=[x]),
        lambda x: ArrayRecord(numpy_ndarrays={"x": x}),
        lambda x: ArrayRecord(torch_state_dict=[torch.ones(1)]),
        lambda x: ArrayRecord({"x": 1}),
        lambda x: ArrayRecord({1: x}),
        lambda x: ArrayRecord(3),
        lambda x: ArrayRecord({"x": flwr.app.Array(x)}, keep_input="no"),
        lambda x: ArrayRecord((flwr.app.Array(x),), keep_input=False),
        lambda x: ArrayRecord().__setitem__("x", x),
        lambda x: ArrayRecord().update([("x", 1)]),
    ],
)
def test_what_flower_refuses_is_refused(wrong):
    with pytest.raises(TypeError):
        wrong(np.zeros(2))


def test_keep_input():
    x, a, theirs = np.zeros(3), Array(np.ones(3)), flwr.app.Array(np.ones(2))
    given = {"x": x, "a": a, "theirs": theirs}
    record = ArrayRecord(given)
    assert given == {"x": x, "a": a, "theirs": theirs} and list(record) == ["x", "a", "theirs"]
    assert record["a"] is a  # as Flower has it, Arrays are shared
    assert record["x"].ownership == "snapshot" and record["theirs"].data is theirs.data
    assert ArrayRecord({"a": a}, copy=True)["a"] is not a
    record = ArrayRecord(given, keep_input=False)
    assert given == {} and list(record) == ["x", "a", "theirs"]
    given = [np.zeros(3), np.zeros(4)]
    assert ArrayRecord(given, keep_input=False)["0"].ownership == "taken" and given == []
    model = torch.nn.Linear(2, 2)
    assert ArrayRecord(model.state_dict(), copy=False)["weight"].ownership == "borrowed"
    assert ParametersRecord([x], False)["0"].ownership == "snapshot"  # where Flower had it before 1.14


def test_arrays_of_every_kind_can_be_put_in():
    record = ArrayRecord()
    record["theirs"] = flwr.app.Array(np.ones(2))
    record["core"] = flatrecord.Array(np.ones(2))
    record["ours"] = mine = Array(np.ones(2))
    record.update({"u": flwr.app.Array(np.ones(2))}, v=flatrecord.Array(np.ones(2)))
    record.update([("w", flwr.app.Array(np.ones(2)))])
    assert record.setdefault("s", flwr.app.Array(np.ones(2))) == mine and record["ours"] is mine
    assert all(type(array) is Array and array == mine for array in record.values()) and len(record) == 7
    theirs = flwr.app.ArrayRecord()
    theirs["ours"] = mine
    assert theirs["ours"] is mine and ArrayRecord({"ours": mine}) == theirs
    taken = ArrayRecord(flatrecord.ParametersRecord({"x": np.ones(2)}), keep_input=False)
    assert type(taken["x"]) is Array and taken["x"].ownership == "taken"


def test_what_comes_out_is_writable_as_with_flower():
    record = ArrayRecord([np.zeros(3)])
    for array in (record["0"].numpy(), record["0"].numpy(copy=True), *record.to_numpy_ndarrays()):
        array += 1
    tensors = record.to_torch_state_dict()
    tensors["0"].add_(1).requires_grad_()
    assert (record["0"].numpy() == 0).all()
    view, (shown,) = record["0"].numpy(copy=False), record.to_numpy_ndarrays(copy=False)
    assert np.shares_memory(view, shown) and not view.flags.writeable and not shown.flags.writeable
    assert np.shares_memory(np.asarray(record["0"]), view) and np.shares_memory(np.from_dlpack(record["0"]), view)
    with pytest.raises(TypeError, match="keep_input must be True or False"):
        record.to_numpy_ndarrays(keep_input=None)


def test_an_array_is_immutable():
    array = Array(np.zeros(3))
    for name in ("dtype", "shape", "stype", "data"):
        with pytest.raises(AttributeError, match=f"{name}: an Array is immutable"):
            setattr(array, name, getattr(array, name))
    assert dataclasses.replace(array, shape=(1, 3)).shape == (1, 3)
    assert dataclasses.asdict(array)["data"] == array.data


def test_equality_across_classes():
    for value in (np.arange(3.0), np.zeros((0, 2)), np.arange(3, dtype=">i4")):
        ours, theirs = Array(value), flwr.app.Array(value)
        assert ours == theirs and theirs == ours and ours == flatrecord.Array(value)
        assert ours != flwr.app.Array(value.astype("f2")) and flwr.app.Array(value.astype("f2")) != ours
    assert ArrayRecord({"x": np.zeros(1)}) != stock({"x": np.ones(1)})
    assert stock({"x": np.zeros(1)}) != ArrayRecord({"y": np.zeros(1)})


def test_pickle_and_copies_carry_no_ids():
    memory = np.zeros(4)
    record = ArrayRecord({"x": memory}, copy=False)
    before = record.object_id
    memory[0] = 1
    assert record.object_id == before  # computed once, and kept
    for other in (pickle.loads(pickle.dumps(record)), copy.deepcopy(record)):
        assert other == record and type(other) is ArrayRecord and type(other["x"]) is Array
        assert other.object_id == stock({"x": np.array([1.0, 0, 0, 0])}).object_id
    record["x"].forget_ids()
    assert record.object_id != before
    record["x"].forget_ids()
    record["x"].forget_ids()
    assert copy.copy(record)["x"] is record["x"]


def test_a_record_that_changes_has_another_id():
    record = ArrayRecord([np.zeros(2), np.ones(2)])
    ids = [record.object_id]
    for change in (lambda: record.pop("0"), lambda: record.update({"z": Array(np.ones(3))}), record.popitem, record.clear):
        change()
        ids.append(record.object_id)
    assert len(set(ids)) == 5
    assert record.object_id == flwr.app.ArrayRecord().object_id


PICKLES = """
import pickle, sys
import numpy as np
import flwr.app
sys.stdout.buffer.write(pickle.dumps(flwr.app.ArrayRecord([np.arange(3.0)])))
"""


def test_a_pickle_of_flowers_own_becomes_ours_where_its_names_are_ours():
    theirs = subprocess.run([sys.executable, "-c", PICKLES], capture_output=True, timeout=60, check=True).stdout
    script = (
        "import pickle, sys, flatrecord.flower as ours, numpy as np\n"
        "from flatrecord.flower import names\n"
        "names.take_over()\n"
        "record = pickle.load(sys.stdin.buffer)\n"
        "assert type(record) is ours.ArrayRecord and type(record['0']) is ours.Array, record\n"
        "assert record == ours.ArrayRecord([np.arange(3.0)])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=theirs, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def test_context_state_goes_through_protobuf():
    record = ArrayRecord({"w": filled((3, 4), "f4"), "b": filled((2,), "i8")})
    context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict({"mine": record}), run_config={})
    back = context_from_proto(context_to_proto(context)).state["mine"]
    assert back == record and ArrayRecord(dict(back)) == record


def test_record_dict_sorts_our_records_among_flowers():
    records = RecordDict({"ours": ArrayRecord([np.zeros(1)]), "p": ParametersRecord(), "m": MetricRecord({"x": 1})})
    assert list(records.array_records) == ["ours", "p"] and list(records.metric_records) == ["m"]
    assert "ArrayRecord" in repr(records)
    assert copy.deepcopy(records) == records


def test_parameters_record_in_a_reply_works():
    content = message(arrays=ParametersRecord({"x": np.arange(3.0)}))
    assert content.content["arrays"].deflate().startswith(b"ArrayRecord ")
    back = received(content, sent(content))["arrays"]
    assert type(back) is ArrayRecord and (back["x"].numpy() == np.arange(3.0)).all()
    (found,) = received_by_stock(content, sent(content)).values()
    assert found["x"][3] == npy(np.arange(3.0))
    assert ParametersRecord.inflate(content.content["arrays"].deflate(), content.content["arrays"].children) == back


def test_to_and_from_flower_share_the_memory():
    core = flatrecord.ParametersRecord({"x": np.arange(3.0), "t": torch.ones(2)})
    addresses = [array.numpy(copy=False).ctypes.data for array in core.values()]
    ours = to_flower(core)
    back = from_flower(ours)
    assert type(ours) is ArrayRecord and type(ours["x"]) is Array
    assert type(back) is flatrecord.ArrayRecord and type(back["x"]) is flatrecord.Array
    for record in (ours, back):
        assert record == core and [array.numpy(copy=False).ctypes.data for array in record.values()] == addresses
    theirs = stock({"x": np.arange(3.0)})
    assert from_flower(theirs)["x"].data is theirs["x"].data and to_flower(from_flower(theirs)) == theirs
    del core, ours
    assert [array.ctypes.data for array in back.to_numpy_ndarrays(keep_input=False)] == addresses


def test_metadata_and_origin_stay(tmp_path):
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    record = ArrayRecord(model.state_dict())
    assert record.to_torch_state_dict()._metadata == model.state_dict()._metadata
    for other in (to_flower(from_flower(record)), ArrayRecord(record), copy.deepcopy(record)):
        assert other.to_torch_state_dict()._metadata == model.state_dict()._metadata
    record.save(tmp_path / "x")
    loaded = ArrayRecord.load(tmp_path / "x")
    assert type(loaded) is ArrayRecord and type(loaded["0.weight"]) is Array
    to_flower(from_flower(loaded)).verify()


def test_flowers_own_fedavg_takes_our_records():
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    def reply(value, weight):
        return RecordDict({"arrays": ArrayRecord([np.full(3, value)]), "metrics": MetricRecord({"n": weight})})

    found = aggregate_arrayrecords([reply(1.0, 1.0), reply(4.0, 2.0)], "n")
    assert (found["0"].numpy() == 3.0).all()
