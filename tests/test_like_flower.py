"""The same numbers and bytes as Flower's own classes, side by side."""

from collections.abc import Mapping, MutableMapping

import flwr.app
import numpy as np

from flatrecord import Array, ArrayRecord


def test_the_same_as_flowers_own_class():
    rng = np.random.default_rng(0)
    ndarrays = {f"layer{i}.größe": rng.standard_normal((i + 1, 3)).astype("f4") for i in range(5)}
    theirs = flwr.app.ArrayRecord({k: flwr.app.Array(v) for k, v in ndarrays.items()})
    ours = ArrayRecord(ndarrays)
    assert ours.count_bytes() == theirs.count_bytes()
    for key, array in theirs.items():
        mine = ours[key]
        assert (mine.dtype, mine.shape, mine.stype, mine.data) == (array.dtype, array.shape, array.stype, array.data)
        assert np.array_equal(Array(array.dtype, array.shape, array.stype, array.data).numpy(), array.numpy())
    for a, b in zip(ours.to_numpy_ndarrays(), theirs.to_numpy_ndarrays(), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    interface = {name for name in dir(Mapping) + dir(MutableMapping) if not name.startswith("_")}
    assert interface | {"count_bytes", "copy", "to_numpy_ndarrays", "from_numpy_ndarrays"} <= set(dir(ours))


def test_equality_with_flowers_own_record():
    assert ArrayRecord() == flwr.app.ArrayRecord()
    assert ArrayRecord({"a": np.zeros(3)}) != flwr.app.ArrayRecord({"a": flwr.app.Array(np.zeros(3))})
