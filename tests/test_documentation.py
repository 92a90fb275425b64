"""The examples of the README, and those of Flower's page on ParametersRecord, run as written."""

import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_the_readme(block, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[block], f"README.md, block {block + 1}", "exec"), {})
    # Where a print has a comment, the comment is what it prints.
    promised = re.findall(r"^print\(.*\)\s+# (?=\d)(.*)$", BLOCKS[block], re.MULTILINE)
    printed = capsys.readouterr().out
    assert all(text in printed for text in promised)


def test_the_readme_has_examples():
    assert len(BLOCKS) >= 2


def test_flowers_first_example():
    from flatrecord import ParametersRecord, array_from_numpy

    arr_np = np.random.randn(3, 3)
    arr = array_from_numpy(arr_np)
    assert repr(arr).startswith("Array(dtype='float64', shape=[3, 3], stype='numpy.ndarray', data=b'")
    p_record = ParametersRecord({"my_array": arr})
    assert p_record["my_array"] is arr
    arr_np_d = arr.numpy()
    assert np.array_equal(arr_np_d, arr_np)


def test_flowers_example_of_a_serialization_of_ones_own():
    from flatrecord import Array, ParametersRecord

    ndarray = np.random.randn(3, 3)
    arr = Array(
        data=ndarray.tobytes(),
        dtype=str(ndarray.dtype),
        stype="",  # Could be used in a deserialization function
        shape=list(ndarray.shape),
    )
    array = ParametersRecord({"mine": arr})["mine"]
    arr_np_d = np.frombuffer(
        buffer=array.data,
        dtype=array.dtype,
    ).reshape(array.shape)
    assert np.array_equal(arr_np_d, ndarray)


def test_flowers_methods():
    from flatrecord import ParametersRecord, array_from_numpy

    def fresh(*names):
        return OrderedDict((name, array_from_numpy(np.full(2, i))) for i, name in enumerate(names))

    array_dict = fresh("a", "b", "c")
    a, b, c = array_dict.values()
    record = ParametersRecord(array_dict, keep_input=False)
    assert len(array_dict) == 0  # "the dictionary passed will be empty once exiting from that function"
    assert record.count_bytes() == sum(len(array.data) + 1 for array in (a, b, c))
    assert record.get("a") is a and record.get("z") is None and record.get("z", b) is b
    assert list(record.items()) == [("a", a), ("b", b), ("c", c)]
    assert list(record.keys()) == ["a", "b", "c"] and list(record.values()) == [a, b, c]
    assert record.pop("a") is a and record.pop("a", None) is None
    assert record.popitem() == ("b", b)
    assert record.setdefault("c", a) is c and record.setdefault("d", a) is a
    record.update(fresh("e"), f=b)
    assert list(record) == ["c", "d", "e", "f"]
    record.clear()
    with pytest.raises(KeyError):
        record.popitem()
    kept = fresh("a")
    assert ParametersRecord(kept, keep_input=True) == kept and list(kept) == ["a"]
