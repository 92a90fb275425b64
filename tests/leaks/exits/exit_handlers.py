"""Handlers at exit make records, copy large arrays, hash, save and load; and others find what they hold still whole."""

import atexit
import os
import tempfile
import weakref

import numpy as np

from flatrecord import Array, ParametersRecord
from flatrecord.safetensors import load, save

LARGE = np.zeros(20 << 20, "u1")
kept = ParametersRecord({"a": np.arange(3.0), "b": LARGE}, keep_input=True)


class Finalized:
    pass


finalized = Finalized()


@atexit.register
def report():
    assert kept["a"].numpy().sum() == 3
    print("done")


@atexit.register
def make():
    record = ParametersRecord({"a": np.arange(3.0), "b": np.zeros(3 << 20, "u1")})
    assert Array(LARGE) == kept["b"]
    record.to_numpy_ndarrays(keep_input=False)


@atexit.register
def save_and_load():
    descriptor, path = tempfile.mkstemp()
    os.close(descriptor)
    try:
        save(kept, path, checksum=True)  # by threads, which cannot be started any more
        load(path).verify(contents=True)
        assert load(path, mmap=False) == kept
    finally:
        os.unlink(path)


weakref.finalize(finalized, lambda: Array(LARGE).numpy())
