"""No memory for the n-th allocation of Python's, for every n: a MemoryError, and nothing is lost.

In a fresh process, as what goes wrong here ends it. Large blocks come from the system and not from Python: see test_workers
for those.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

COMPREHENSION = re.compile(r"\[([^\[\]]+?) for .+? in .+?\]")

SCRIPT = """
import sys, warnings
import _testcapi
import numpy as np
from flatrecord import Array, ParametersRecord

def plain():
    return {f"layer{i}": np.full(5, i, "f4") for i in range(6)}

def views():
    base = np.arange(50.0)
    return {"first": base[1:], "second": base[:-1], "other": np.ones(3)}

def tied():
    array = np.arange(7.0)
    return {"a": array, "b": np.ones(2), "c": array, "d": np.arange(12.0)[::3]}

def arrays():
    shared = Array(np.arange(9.0))
    return {"x": shared, "y": shared, "z": Array(np.ones((2, 2)))}

def listed():
    return list(plain().values())

make, keep_input, copy = {"plain": plain, "views": views, "tied": tied, "arrays": arrays, "listed": listed}[sys.argv[1]], *map(eval, sys.argv[2:])

def shown(source):
    items = source.items() if hasattr(source, "items") else enumerate(source)
    return [(key, (value.numpy() if isinstance(value, Array) else value).tolist()) for key, value in items]

made_record = [None]

def there_and_back(source):
    made_record[0] = None
    made_record[0] = ParametersRecord(source, keep_input, copy=copy)
    return made_record[0].to_numpy_ndarrays(keep_input=False)

expected = shown(make())
there_and_back(make())
failures = made = 0
n = 1
while made < 3 and n < 2000:
    source = make()
    _testcapi.set_nomemory(n, n + 1)
    try:
        try:
            there_and_back(source)
        finally:
            _testcapi.remove_mem_hooks()
        made += 1
    except (MemoryError, SystemError) as error:
        # dict.setdefault of CPython 3.13.0 says so where it has no memory.
        assert isinstance(error, MemoryError) or "setdefault" in str(error), error
        if made_record[0] is not None:  # so it was on the way out
            assert [value for _, value in shown(made_record[0])] == [value for _, value in expected], n
        if made_record[0] is None or keep_input:
            assert shown(source) == expected, (n, getattr(error, "__notes__", ()))
        failures, made = failures + 1, 0
    del source
    n += 1
assert made == 3 and failures > 10
"""


@pytest.mark.skipif(
    importlib.util.find_spec("_testcapi") is None, reason="this Python came without its own tests' module, which makes allocations fail"
)
@pytest.mark.parametrize("keep_input", [False, True])
@pytest.mark.parametrize(
    ("entries", "copy"),
    [
        (entries, copy)
        for entries in ("plain", "views", "tied", "arrays", "listed")
        for copy in (None, True, False)
        if (entries, copy) != ("tied", False)  # a strided array cannot be borrowed
    ],
)
def test_each_allocation_fails_once(entries, copy, keep_input):
    command = [sys.executable, "-X", "faulthandler", "-c", SCRIPT, entries, str(keep_input), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_no_list_comprehension_makes_its_items():
    # Where there is no memory to append such an item, code of Cython 3.3.1 lets go of it twice. A name's value it does not.
    sources = list((Path(__file__).parents[2] / "src/flatrecord/_core").glob("*.pyx"))
    assert len(sources) > 15
    found = [(path.name, match[0]) for path in sources for match in COMPREHENSION.finditer(path.read_text()) if not match[1].isidentifier()]
    assert found == []
