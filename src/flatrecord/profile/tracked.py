"""The process that is profiled. `LAUNCH` is what its Python is told to do."""

from __future__ import annotations

import atexit
import builtins
import importlib.util
import io
import json
import os
import sys
import time
import types
from types import CodeType
from typing import Any

import memray

from .notes import Writer
from .places import PROFILER
from .resident import observed
from .watching import watch

# Not with -m, which would put the working directory first where the imports below are looked for.
LAUNCH = f"import sys; sys.flags.safe_path or sys.path.pop(0); from {__name__} import main; sys.exit(main(*sys.argv[1:]))"
# Freed memory that is kept would count as held, and be blamed on whoever had it first: none is, in this process.
CACHE = "FLATRECORD_CACHE_MIB"
LOOK_EVERY = 2  # milliseconds: what a program allocates in between comes in no order


def main(capture: str, notes: str, settings: str, target: str, *arguments: str) -> int:
    """Run a script, or a module where `settings` says so, as Python itself would, and track what it allocates.

    Returns 1 if it fails, and 130 if it is interrupted; SystemExit is the program's own.
    """
    options = json.loads(settings)
    if options["cache"] is None:
        del os.environ[CACHE]
    else:
        os.environ[CACHE] = options["cache"]
    # pytest would warn that it cannot rewrite the assertions of a plugin's package that was imported before it.
    sys.modules["flatrecord"].__doc__ = f"{sys.modules['flatrecord'].__doc__}\nPYTEST_DONT_REWRITE"
    sys.argv[:] = [ascii(target)]  # memray writes it down
    tracker = memray.Tracker(
        destination=memray.FileDestination(capture, overwrite=True),
        trace_python_allocators=options["python_allocators"],
        memory_interval_ms=LOOK_EVERY,
    )
    sys.argv[:] = [target, *arguments]
    program = sys.modules["__main__"] = types.ModuleType("__main__")
    writer = Writer(notes)
    try:
        code = (_module if options["module"] else _script)(target, program)
        watch(writer)
        own = os.path.join(os.path.dirname(program.__file__ or ""), "") if options["module"] else ""
        writer.say(started={"time": time.time(), "resident": observed("VmRSS"), "own": own})
        tracker.__enter__()
        # Before any of the program's own, so that it comes after them; and threads have ended by then.
        atexit.register(_finish, tracker, writer)
        exec(code, vars(program))
    except Exception as error:
        return _failed(error, 1)
    except KeyboardInterrupt as error:
        return _failed(error, 130)
    return 0


def _finish(tracker: memray.Tracker, writer: Writer) -> None:
    tracker.__exit__(None, None, None)
    writer.say(ended={"time": time.time(), "resident": observed("VmRSS"), "peak": observed("VmHWM")})
    writer.close()


def _script(path: str, program: types.ModuleType) -> CodeType:
    """Make `program` what Python makes of a script's module; its code."""
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    absolute = os.path.abspath(path)
    vars(program).update(__file__=absolute, __builtins__=builtins, __annotations__={}, __cached__=None)
    with io.open_code(absolute) as file:
        code: CodeType = compile(file.read(), absolute, "exec", dont_inherit=True)
    return code


def _module(name: str, program: types.ModuleType) -> CodeType:
    """The same for a module that is run with ``-m``.

    Raises
    ------
    ImportError
        If there is none of this name, or it is not of a kind that can be run.
    """
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    loader: Any = spec and spec.loader
    code: CodeType | None = loader.get_code(spec.name) if spec is not None and hasattr(loader, "get_code") else None
    if spec is None or code is None:
        raise ImportError(f"{sys.executable}: there is no module {name} that can be run")
    sys.argv[0] = spec.origin or name
    attributes = dict(__file__=spec.origin, __spec__=spec, __package__=spec.parent, __loader__=loader, __cached__=spec.cached)
    vars(program).update(__builtins__=builtins, __annotations__={}, **attributes)
    return code


def _failed(error: BaseException, status: int) -> int:
    """Show an error from where the program's own frames begin, as the program would have it shown."""
    found = error.__traceback__
    while found is not None and os.path.dirname(found.tb_frame.f_code.co_filename) == PROFILER:
        found = found.tb_next
    sys.excepthook(type(error), error.with_traceback(found), found)
    return status
