"""Made in one thread, let go in another: small and large blocks, taken ndarrays, views, mappings, records, cycles."""

import gc
import mmap
import queue
import threading

import numpy as np
from _measuring import report, turn

from flatrecord import Array, ParametersRecord

LARGE = np.zeros(1 << 20, "u1")
SMALL = np.arange(6.0)

given, done = queue.SimpleQueue(), queue.SimpleQueue()


def let_go_of_what_comes():
    while True:
        value = given.get()
        del value
        done.put(None)


threading.Thread(target=let_go_of_what_comes, daemon=True).start()


@turn
def small():
    given.put([Array(SMALL), Array(SMALL, copy=False), Array("", [4], "", bytearray(4)), ParametersRecord([np.arange(3.0)])])
    done.get()


@turn
def views():
    record = ParametersRecord({"a": np.arange(6.0), "b": SMALL[::2]})
    given.put([*record.to_numpy_ndarrays(), record["a"].segments(), memoryview(record["b"]), record["a"].chunks(5), record.keys()])
    del record
    done.get()


@turn(turns=1000)  # as 3 MiB are written to
def large():
    record = ParametersRecord({"a": LARGE, "b": LARGE.reshape(1024, 1024).T, "c": np.full(1 << 20, 1, "u1")})
    given.put([record["a"].numpy(), record])
    del record
    done.get()


@turn
def mappings():
    given.put(Array(np.frombuffer(mmap.mmap(-1, 4096), "u1"), copy=False))
    done.get()


@turn
def made_elsewhere_and_let_go_here():
    made = []
    thread = threading.Thread(target=lambda: made.append(ParametersRecord({"a": np.arange(6.0), "b": SMALL[::2]})))
    thread.start()
    thread.join()
    assert made.pop()["b"].numpy().sum() == 6


@turn
def made_let_go_and_ended_elsewhere():
    def work():
        ParametersRecord({"a": np.arange(6.0), "b": SMALL[::2]}).to_numpy_ndarrays(keep_input=False)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


class Tagged(Array):
    pass


@turn(turns=500, collected=True)  # as each turn has its own collection
def collected_elsewhere():
    array = Tagged(SMALL)
    array.own = array
    del array
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


report()
