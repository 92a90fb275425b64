"""Everything is alive as a global of the main module: records, views, iterators half-way, mappings, cycles."""

import mmap

import numpy as np

from flatrecord import Array, ArrayRecord, ParametersRecord


class Mine(ParametersRecord):
    """With attributes."""


class Labelled(np.ndarray):
    """With attributes."""


source = np.arange(6.0)
record = ParametersRecord({"taken": np.arange(3.0), "copied": source, "shared": np.frombuffer(bytes(8))})
large = ArrayRecord({"a": np.zeros(3 << 20, "u1")})
array = Array(source)
borrowed = Array(np.frombuffer(mmap.mmap(-1, 4096), "u1"), copy=False)
views = [array.numpy(), large["a"].numpy(), borrowed.numpy(), memoryview(array), *array.segments(), np.from_dlpack(array)]
chunks = array.chunks(9)
next(chunks)
iterators = [iter(record), iter(record.items()), reversed(record)]
for iterator in iterators:
    next(iterator)
live = [record.keys(), record.values(), record.items()]
cycle = Mine({"a": np.arange(3.0)})
cycle.own, cycle.views = cycle, cycle.to_numpy_ndarrays()
labelled = np.arange(3.0).view(Labelled)
labelled.record = ParametersRecord({"a": labelled}, keep_input=True, copy=False)
released = large.to_numpy_ndarrays(keep_input=False)
print("done")
