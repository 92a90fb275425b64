"""Daemon threads are in the middle of copies, comparisons and round trips when the interpreter exits."""

import threading
import time

import numpy as np

from flatrecord import Array, ParametersRecord

LARGE = np.zeros(24 << 20, "u1")
TURNED = LARGE.reshape(4096, -1).T


def work_for_ever(work):
    while True:
        work()


for work in (
    lambda: Array(LARGE),
    lambda: Array(TURNED),
    lambda: Array(LARGE, copy=False) == Array(LARGE[:-1], copy=False),
    lambda: ParametersRecord({"a": LARGE, "b": TURNED}, keep_input=True).to_numpy_ndarrays(keep_input=False),
):
    threading.Thread(target=work_for_ever, args=(work,), daemon=True).start()

time.sleep(0.1)
print("done")
