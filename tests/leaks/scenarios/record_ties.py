"""Entries that share memory: tied, overlapping, on one base; on the way in, out, and asked about."""

import numpy as np
from _measuring import each, report

from flatrecord import Array, ParametersRecord

HELD = np.arange(20.0)


def one_object():
    shared = np.arange(7.0)
    return {"a": shared, "b": np.arange(2.0), "c": shared}


def views_on_one_base():
    base = np.arange(50.0)
    return {"a": base[:-1], "b": base[1:], "c": base[3:9], "d": base.reshape(5, 10)}


def strided_views():
    base = np.arange(48.0).reshape(6, 8)
    return {"a": base[::2], "b": base[::2], "c": base.T, "d": base}


def views_on_held_memory():
    return {"a": HELD[:10], "b": HELD[5:], "c": HELD[::2], "d": HELD}


def views_on_a_bytearray():
    base = bytearray(800)
    return {"a": np.frombuffer(base), "b": np.frombuffer(memoryview(base)[80:])}


def views_on_bytes():
    base = bytes(800)
    return {"a": np.frombuffer(base), "b": np.frombuffer(base, "u1")}


def arrays():
    shared = Array(np.arange(9.0))
    return {"a": shared, "b": shared, "c": Array(shared.numpy(), copy=False), "d": shared.numpy()}


KINDS = [one_object, views_on_one_base, strided_views, views_on_held_memory, views_on_a_bytearray, views_on_bytes, arrays]


@each({kind.__name__.replace("_", " "): kind for kind in KINDS})
def there_and_back(kind):
    for copy in (None, True):
        for keep_input in (False, True):
            record = ParametersRecord(kind(), keep_input, copy=copy)
            record.ties(), record.count_memory(), record.count_bytes()
            record.to_numpy_ndarrays(), record.to_numpy_ndarrays(copy=True)
            out = record.to_numpy_ndarrays(keep_input=False)
            out[0][0] = 1


report()
