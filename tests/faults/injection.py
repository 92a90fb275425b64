"""The library made of ``injector.c``: compiled here, and controlled in the process that it is preloaded into."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
MEMORY, MAPS, OUT, IN, FILES = 1, 2, 4, 8, 16  # groups of calls
FAIL, SHORT, INTERRUPT = range(3)


def compiled(folder: Path) -> Path:
    """Compile the library."""
    library = folder / "injector.so"
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-shared", "-fPIC"]
    command = ["gcc", *options, "-o", library, Path(__file__).with_name("injector.c"), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, env={**os.environ, "LD_PRELOAD": ""})  # gcc itself is nothing to look for leaks in
    return library


def environment(library: Path | None, **more: str) -> dict[str, str]:
    """For a fresh process, where large arrays are fresh mappings and the library is preloaded."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    # After what is preloaded already: a sanitizer has to be the first.
    preloaded = {} if library is None else {"LD_PRELOAD": " ".join([*filter(None, [os.environ.get("LD_PRELOAD")]), str(library)])}
    return {**os.environ, "PYTHONPATH": path, "FLATRECORD_CACHE_MIB": "0", **preloaded, **more}


class Injector:
    """The library in this process.

    Parameters
    ----------
    groups : int
        Which calls count: the sum of some of the above.
    action : int
        What happens to the one that goes wrong: FAIL, SHORT (half is moved) or INTERRUPT (a SIGINT, and it goes on).
    error : int
        errno for FAIL.
    every : bool
        Each n-th call goes wrong, and not the n-th alone.
    everywhere : bool
        Calls of other threads count, too.
    """

    def __init__(self, groups: int, action: int = FAIL, error: int = 0, every: bool = False, everywhere: bool = False) -> None:
        library = ctypes.CDLL(None)

        def variable(name: str) -> ctypes.c_long:
            return ctypes.c_long.in_dll(library, f"injector_{name}")

        self._settings = [
            (variable("groups"), groups),
            (variable("action"), action),
            (variable("error"), error),
            (variable("every"), int(every)),
            (variable("everywhere"), int(everywhere)),
        ]
        self._at, self._seen, self._fired = variable("at"), variable("seen"), variable("fired")

    def prepare(self) -> None:
        """Set all but the moment."""
        for place, value in self._settings:
            place.value = value
        self._seen.value = self._fired.value = 0

    def start(self, at: int) -> None:
        """Let call number `at` go wrong from now on. To be told with a number that exists already: nothing here allocates."""
        self._at.value = at

    def stop(self) -> None:
        self._at.value = 0

    @property
    def fired(self) -> int:
        """int: how many of them went wrong."""
        return self._fired.value


def live_blocks() -> int:
    """How many blocks of memory and mappings this process has, Python's small objects included."""
    return ctypes.c_long.in_dll(ctypes.CDLL(None), "injector_blocks").value + sys.getallocatedblocks()
