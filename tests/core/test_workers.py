"""The pool of threads that copies: how many, after a fork, in the middle of signals, and where there can be none.

Most cases run in a fresh process, as the pool is made once.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flatrecord import Array

MIB = 1 << 20

START = """
import ctypes, json, os, resource, signal, sys, threading, time
import numpy as np
MIB = 1 << 20

def workers():
    # Threads that are none of Python's. One of Python's that has just ended may be there for a moment.
    counts = set()
    for _ in range(20):
        counts.add(len(os.listdir("/proc/self/task")) - threading.active_count())
        time.sleep(0.002)
    return min(counts)

def check(array, source):
    shown = array.numpy()
    assert shown.shape == source.shape
    for i in range(0, len(source), MIB):
        assert np.array_equal(shown[i : i + MIB], source[i : i + MIB])

def in_child(source):
    # A copy in a forked child finds every byte, and the child ends.
    child = os.fork()
    if child == 0:
        check(Array(source), source)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

def address_space():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * 4096

def noise(size):
    return np.random.default_rng(size).integers(0, 256, size, np.uint8)

source = noise(64 * MIB)

def start_pool():
    # The allocator of GCC 12's AddressSanitizer does not survive a fork while a thread is starting, so they are given time.
    check(Array(source), source)
    time.sleep(1)
"""
# NumPy's own threads would be counted too; and Python 3.12 warns of a fork where there are threads of any kind.
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "FLATRECORD_THREADS": "4"}


def script(text: str, **environment: str) -> object:
    """What a script, that may use what stands in START, prints as JSON."""
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", START + text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**ENVIRONMENT, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("threads", [1, 2, 4, 40])
def test_as_many_threads_as_are_asked_for_started_once_when_they_are_needed(threads):
    found = script(
        """
from flatrecord import Array
from flatrecord._core.workers import cores
counts = [workers()]
check(Array(source[: 1 * MIB]), source[: 1 * MIB])
counts.append(workers())
for _ in range(3):
    check(Array(source), source)
    check(Array(source[::2]), source[::2])
    counts.append(workers())
print(json.dumps([cores(), *counts]))
""",
        FLATRECORD_THREADS=str(threads),
    )
    assert found == [threads, 0, 0, *[min(threads, 32) - 1] * 3]


def test_as_many_as_there_are_cores_where_nobody_asks():
    found = script(
        """
from flatrecord import Array
from flatrecord._core.workers import cores
some = len(os.sched_getaffinity(0))
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
check(Array(source), source)
print(json.dumps([some, cores(), workers()]))
""",
        FLATRECORD_THREADS="",
    )
    assert found == [len(os.sched_getaffinity(0)), 1, 0]


@pytest.mark.parametrize("setting", ["0", "-1", "many", "1.5", "1025", "²"])
def test_a_setting_that_is_no_number_of_threads(setting):
    command = [sys.executable, "-c", "import flatrecord"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "FLATRECORD_THREADS": setting})
    assert done.returncode == 1
    assert f"ValueError: FLATRECORD_THREADS must be a whole number from 1 to 1024, got {setting!r}" in done.stderr


def test_after_a_fork():
    found = script(
        """
from flatrecord import Array
start_pool()
read, write = os.pipe()
child = os.fork()
if child == 0:
    counts = [workers()]
    for _ in range(3):
        check(Array(source), source)
    os.write(write, json.dumps([*counts, workers()]).encode())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
check(Array(source), source)
print(json.dumps([json.loads(os.read(read, 100)), workers()]))
"""
    )
    assert found == [[0, 3], 3]


@pytest.mark.memory  # under AddressSanitizer it is the sanitizer's own allocator that a child waits for (see start_pool)
@pytest.mark.parametrize("attempt", range(8))
def test_a_fork_while_the_pool_is_being_started(attempt):
    # Where the fork was noticed only once the pool had been asked for, one in some ten of these never ended.
    found = script(
        """
from flatrecord import Array
def copy():
    for _ in range(5):
        Array(source[: 8 * MIB])
busy = threading.Thread(target=copy)
busy.start()
for _ in range(6):
    in_child(source[: 8 * MIB])
busy.join()
print(json.dumps(workers()))
""",
        FLATRECORD_THREADS="8",
    )
    assert 0 < found < 8  # no more than there are pieces


def test_a_fork_while_another_thread_copies():
    found = script(
        """
from flatrecord import Array
start_pool()
stop = threading.Event()
def copy():
    while not stop.is_set():
        check(Array(source), source)
busy = threading.Thread(target=copy)
busy.start()
for _ in range(20):
    in_child(source[: 16 * MIB])
stop.set()
busy.join()
print(json.dumps(workers()))
"""
    )
    assert found == 3


def test_a_signal_handler_that_forks_in_the_middle_of_a_copy():
    # Each process finds the whole array in its snapshot, though the child lacks the threads that were at parts of it.
    found = script(
        """
from flatrecord import Array
start_pool()
large = np.concatenate([source] * 16)
forked = []
def handler(*_):
    signal.setitimer(signal.ITIMER_REAL, 0)
    forked.append(os.fork())
signal.signal(signal.SIGALRM, handler)
tries = 0
while not forked or not middle:
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    copy = Array(large)
    middle = bool(forked)  # and not before or after
    signal.setitimer(signal.ITIMER_REAL, 0)
    tries += 1
    assert tries < 50
check(copy, large)
if forked[0] == 0:
    os._exit(0)
assert os.waitpid(forked[0], 0)[1] == 0
print(json.dumps(len(forked)))
"""
    )
    assert found == 1


def test_a_storm_of_signals():
    found = script(
        """
from flatrecord import Array, ParametersRecord
handled = 0
def handler(*_):
    global handled
    handled += 1
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for _ in range(10):
    check(Array(source), source)
    check(Array(source.reshape(-1, 512)[:, :-1].T), source.reshape(-1, 512)[:, :-1].T)
signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps(handled > 10))
"""
    )
    assert found is True


@pytest.mark.posix
def test_no_signal_goes_to_a_thread_of_the_pool_but_for_those_that_it_raises_itself():
    found = script(
        """
from flatrecord import Array
mine = set(os.listdir("/proc/self/task"))
check(Array(source), source)
blocked = []
for task in set(os.listdir("/proc/self/task")) - mine:
    with open(f"/proc/self/task/{task}/status") as file:
        status = file.read()
    mask = int(status.split("SigBlk:")[1].split()[0], 16)
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGSEGV, signal.SIGBUS
    blocked.append([status.startswith("Name:\\tflatrecord\\n"), *(bool(mask & 1 << number - 1) for number in numbers)])
print(json.dumps(blocked))
"""
    )
    assert found == [[True, True, True, True, False, False]] * 3


def test_where_no_thread_can_be_started():
    found = script(
        """
import threading
from flatrecord import Array
if os.geteuid() == 0:  # whom no limit holds
    os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    threading.Thread(target=int).start()
    refused = False
except RuntimeError:
    refused = True
check(Array(source), source)
check(Array(source[::2]), source[::2])
print(json.dumps([refused, workers()]))
""",
        LSAN_OPTIONS="detect_leaks=0",  # which is not allowed to somebody who has become somebody else
    )
    assert found == [True, 0]


NO_HUGE_PAGES = "ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)\n"  # PR_SET_THP_DISABLE, as on a machine that has none


def test_without_huge_pages():
    found = script(
        NO_HUGE_PAGES
        + """
from flatrecord import Array, ParametersRecord
for size in (1, MIB, 5 * MIB + 1, 64 * MIB):
    check(Array(source[:size]), source[:size])
turned = source.reshape(-1, 512)[:, :-1].T
check(Array(turned), turned)
record = ParametersRecord({"x": Array(source)})
assert np.array_equal(record.to_numpy_ndarrays(copy=True)[0], source)
print(json.dumps(workers()))
"""
    )
    assert found == 3


@pytest.mark.memory
def test_no_room_for_a_snapshot_and_nothing_is_lost():
    found = script(
        """
from flatrecord import Array, ParametersRecord
check(Array(source), source)
model = {"a": noise(16 * MIB), "held": source, "b": noise(8 * MIB)}
limit = address_space() + 20 * MIB
resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
try:
    ParametersRecord(model, copy=True)
    raised = None
except MemoryError as error:
    raised = str(error)
first = next(iter(model.values()))
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print(json.dumps([raised, list(model), model["held"] is source, bool(np.array_equal(first, noise(16 * MIB)))]))
""",
        FLATRECORD_CACHE_MIB="0",
    )
    assert found == [f"key 'held': cannot allocate {64 * MIB} bytes for an array", ["a", "held", "b"], True, True]


def test_many_threads_that_copy_at_once():
    arrays = [np.random.default_rng(i).integers(0, 256, 9 * MIB + i, np.uint8) for i in range(6)]

    def copy(source):
        for _ in range(5):
            assert np.array_equal(Array(source).numpy(), source)
            assert np.array_equal(Array(source[::-1]).numpy(), source[::-1])
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(copy, arrays))
