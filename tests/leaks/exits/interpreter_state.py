"""Alive where the interpreter lets go of it last: sys.modules, builtins, sys, a hook, a class, a thread's own, a generator."""

import builtins
import sys
import threading

import numpy as np

from flatrecord import ParametersRecord


def record():
    return ParametersRecord({"a": np.arange(3.0), "b": np.zeros(3 << 20, "u1"), "c": np.arange(8.0)[::2]})


class Holder:
    held = record()


def generator():
    own = record()
    yield own["a"].numpy()
    yield own


sys.modules["no.module"] = record()
builtins.held, sys.held = record(), record()["b"].numpy()
local = threading.local()
local.held = record()
running = generator()
next(running)
hooked = record()
sys.excepthook = lambda *arguments, held=hooked: None
print("done")
