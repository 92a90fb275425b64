"""The process that is profiled: ``python -m flatrecord.profile.tracked CAPTURE NOTES SETTINGS TARGET ...``."""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
import traceback
from types import TracebackType

import memray

from .notes import Writer
from .places import OURS
from .resident import status
from .watching import watch

LOOK_EVERY = 2  # milliseconds: what a program allocates in between comes in no order


def main(capture: str, notes: str, settings: str, target: str, *arguments: str) -> int:
    """Run a script, or a module where `settings` says so, as Python itself would, and track what it allocates."""
    options = json.loads(settings)
    sys.argv[:] = [target, *arguments]
    if not options["module"] and not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(target))
    with Writer(notes) as writer:
        watch(writer)
        writer.say(started={"time": time.time(), "resident": status("VmRSS")})
        try:
            return _run(target, capture, **options)
        finally:
            writer.say(ended={"time": time.time(), "resident": status("VmRSS"), "peak": status("VmHWM")})


def _run(target: str, capture: str, module: bool, python_allocators: bool) -> int:
    """Run the program while memray tracks it; the exit status, but for what it raises as SystemExit."""
    tracker = memray.Tracker(
        destination=memray.FileDestination(capture, overwrite=True),
        trace_python_allocators=python_allocators,
        memory_interval_ms=LOOK_EVERY,
    )
    try:
        with tracker:
            if module:
                runpy.run_module(target, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(target, run_name="__main__")
    except Exception as error:
        error.__traceback__ = _own(error.__traceback__)
        traceback.print_exception(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _own(found: TracebackType | None) -> TracebackType | None:
    """A traceback from where the program's own frames begin; None if it did not come so far."""
    while found is not None and found.tb_frame.f_code.co_filename.startswith((OURS, "<frozen runpy")):
        found = found.tb_next
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
