"""Every dtype and layout that torch has, in and out of a record, bit by bit."""

import io
from collections import OrderedDict

import flwr.app
import ml_dtypes
import numpy as np
import pytest
import torch
from tensors.values import DEVICES, DTYPES, LAYOUTS, OTHERS, bits, filled, model

from flatrecord import Array, ArrayRecord, ParametersRecord


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request):
    return LAYOUTS[request.param]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_input", [False, True])
def test_a_round_trip_is_exact(dtype, layout, keep_input, device):
    tensor = layout(dtype).to(device)
    expected, shape = bits(tensor.cpu()), tensor.shape
    state_dict = OrderedDict(x=tensor)
    del tensor
    record = ParametersRecord.from_torch_state_dict(state_dict, keep_input)
    array = record["x"]
    assert len(state_dict) == keep_input
    assert array.shape == tuple(shape) and array.dtype == str(dtype).removeprefix("torch.") == str(array.numpy().dtype)
    assert array.numpy().tobytes() == expected
    assert np.lib.format.read_array(io.BytesIO(array.data)).tobytes() == expected
    for out in (record.to_torch_state_dict()["x"], array.torch(), array.torch(copy=True)):
        assert out.dtype is dtype and out.shape == shape and bits(out) == expected
    del array, out
    out = record.to_torch_state_dict(keep_input=False)["x"]
    assert out.dtype is dtype and out.shape == shape and bits(out) == expected and not out.is_inference()


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_flower_reads_what_numpy_has_no_name_for(name):
    tensor = filled((5, 3), getattr(torch, name))
    array = Array(tensor)
    assert array.dtype == name and array.numpy().dtype == getattr(ml_dtypes, name)
    theirs = flwr.app.Array(array.dtype, array.shape, array.stype, array.data).numpy()
    assert theirs.dtype.kind == "V" and theirs.tobytes() == bits(tensor)
    received = ParametersRecord({"x": Array(array.dtype, array.shape, array.stype, array.data)})
    assert bits(received.to_torch_state_dict(keep_input=False)["x"]) == bits(tensor)


def test_the_same_bytes_as_flowers_own():
    state_dict = model().state_dict()
    theirs = flwr.app.ArrayRecord(state_dict)
    ours = ArrayRecord.from_torch_state_dict(state_dict)
    assert ours.count_bytes() == theirs.count_bytes() and list(ours) == list(theirs)
    for key, array in theirs.items():
        mine = ours[key]
        assert (mine.dtype, mine.shape, mine.stype, mine.data) == (array.dtype, tuple(array.shape), array.stype, array.data)


@pytest.mark.parametrize("other", sorted(OTHERS, key=str), ids=str)
def test_every_other_dtype_is_refused_by_name(other):
    source = {"ok": torch.zeros(2), "odd": torch.empty(4, dtype=torch.uint8).view(other)}
    with pytest.raises(TypeError, match=rf"key 'odd': .*({other} has no counterpart in NumPy|quantized one \({other},)"):
        ParametersRecord(source)
    assert list(source) == ["ok", "odd"]


@pytest.mark.parametrize("kind", [">f4", "S3", "M8[ns]", "g", [("a", "f4")], ml_dtypes.int4])
@pytest.mark.parametrize("keep_input", [False, True])
def test_what_torch_has_no_dtype_for_stays_in_the_record(kind, keep_input):
    record = ParametersRecord({"ok": np.zeros(3), "odd": np.zeros(3, kind)})
    with pytest.raises(TypeError, match=r"key 'odd': torch .* has no dtype for NumPy's"):
        record.to_torch_state_dict(keep_input=keep_input)
    assert list(record) == ["ok", "odd"]
    with pytest.raises(TypeError, match="has no dtype"):
        record["odd"].torch()
