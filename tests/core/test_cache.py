"""What is kept of freed memory: little, never shared, and given up where it is needed."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from flatrecord import Array
from flatrecord._core.buffer import empty_cache

MIB = 1 << 20

START = """
import json, os, resource
import numpy as np
from flatrecord import Array, ParametersRecord
MIB = 1 << 20

def pages(field):
    with open("/proc/self/statm") as file:
        return int(file.read().split()[field]) * 4096

def resident():
    return pages(1)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
"""


def script(text: str, cache: str = "") -> object:
    """What a script, that may use what stands in START, prints as JSON."""
    command = [sys.executable, "-W", "error", "-c", START + text]
    variables = {**os.environ, "FLATRECORD_CACHE_MIB": cache}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


DROPPED = """
model = {str(i): np.full(%d, 1, np.uint8) for i in range(512 * MIB // %d)}
Array(np.ones(64 * MIB, np.uint8))  # what is loaded or started once
before = resident()
record = ParametersRecord(model, keep_input=True)
built = resident()
del record
print(json.dumps([built - before, resident() - before]))
"""


@pytest.mark.memory
@pytest.mark.parametrize("entry", [1 * MIB, 5 * MIB, 16 * MIB, 512 * MIB])
@pytest.mark.parametrize("cache, kept", [("", 32), ("0", 0), ("100", 100)])
def test_freed_memory_goes_back_to_the_system_but_for_what_is_kept(entry, cache, kept):
    built, left = script(DROPPED % (entry, entry), cache)
    assert built > 500 * MIB
    assert left <= (kept + 4) * MIB


@pytest.mark.memory
def test_a_loop_over_one_array_is_given_the_same_memory_each_time():
    loop = """
source = np.ones(16 * MIB, np.uint8)
Array(source)
before = faults()
for _ in range(20):
    Array(source)
print(json.dumps(faults() - before))
"""
    assert script(loop) < 10
    assert script(loop, "0") >= 20 * 8  # a huge page each: the control


@pytest.mark.memory
def test_what_is_kept_is_given_up_where_there_is_no_other_room():
    found = script(
        """
source = np.ones(48 * MIB, np.uint8)
kept = Array(source[: 30 * MIB])
del kept
limit = pages(0) + 24 * MIB
resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
print(json.dumps(Array(source) == Array(source, copy=False)))
"""
    )
    assert found is True


@pytest.mark.parametrize("setting", ["-1", "all", "0.5"])
def test_a_setting_that_is_no_size(setting):
    command = [sys.executable, "-c", "import flatrecord"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "FLATRECORD_CACHE_MIB": setting})
    assert f"ValueError: FLATRECORD_CACHE_MIB must be a whole number from 0 to 1048576, got {setting!r}" in done.stderr


def test_memory_that_was_kept_has_one_owner():
    """Arrays that come and go in any order, of sizes that fit each other's memory, each full of its own number."""
    chance = random.Random(5)
    alive: list[tuple[int, Array]] = []
    for number in range(400):
        size = chance.choice([MIB, MIB + 1, MIB + MIB // 8, 2 * MIB, 3 * MIB, 17 * MIB, 33 * MIB]) - chance.choice([0, 8, 4096])
        alive.append((number % 251, Array(np.full(size, number % 251, np.uint8))))
        if len(alive) > 6 or chance.random() < 0.4:
            alive.pop(chance.randrange(len(alive)))
        if number % 50 == 0:
            empty_cache()
        for value, array in alive:
            shown = array.numpy()
            assert shown[0] == shown[-1] == shown[len(shown) // 2] == value
    for value, array in alive:
        assert (array.numpy() == value).all()
