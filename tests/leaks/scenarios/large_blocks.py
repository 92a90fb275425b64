"""Blocks that are mapped, and given back to the system or kept for the next: in all ways in and out, and where there is no room."""

import resource

import numpy as np
from _measuring import refused, report, turn

from flatrecord import Array, ParametersRecord
from flatrecord._core.buffer import empty_cache

MIB = 1 << 20
SOURCE = np.zeros(MIB, "u1")
# Of 1 MiB each, which are written to, so that 10,000 turns would move some 100 GiB.
TURNS = 500


@turn(turns=TURNS)
def snapshots():
    array = Array(SOURCE)
    Array(SOURCE.reshape(1024, 1024).T)
    array.numpy(copy=True)[0] = 1
    Array("", [1], "", bytearray(SOURCE))


@turn(turns=TURNS)
def there_and_back():
    record = ParametersRecord({"a": SOURCE, "b": SOURCE[:-1]}, keep_input=True)
    views = record.to_numpy_ndarrays()
    out = record.to_numpy_ndarrays(keep_input=False)
    assert len(views) == len(out) == 2
    del record, views
    ParametersRecord(out).to_numpy_ndarrays(keep_input=False)


@turn(turns=TURNS)
def by_all_cores():
    large = np.zeros(3 * MIB, "u1")
    assert Array(large) == Array(large, copy=False)


@turn
def emptied_when_there_is_nothing_to_empty():
    empty_cache()


HUGE = np.broadcast_to(np.ones(1, "f4"), 1 << 50)


@turn
def no_room():
    with refused(MemoryError, "cannot allocate"):
        Array(HUGE)


@turn(turns=200)
def no_room_for_the_second():
    limit = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", "rb") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    model = {str(i): np.broadcast_to(np.zeros(1, "u1"), 20 * MIB) for i in range(3)}
    resource.setrlimit(resource.RLIMIT_AS, (now + 30 * MIB, limit[1]))
    with refused(MemoryError, "key '1': cannot allocate"):
        ParametersRecord(model, keep_input=True)
    resource.setrlimit(resource.RLIMIT_AS, limit)


report()
