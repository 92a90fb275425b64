"""One thing goes wrong at the n-th moment of an operation, for every n: ``python -m faults.sweep KIND GROUP FOLDER``.

Run in a fresh process, because what is wrong here may well end it. Prints a line of JSON for each operation. A further argument
names the only operation to be run.
"""

from __future__ import annotations

import errno
import faulthandler
import gc
import json
import linecache
import os
import re
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import repeat
from operator import call
from pathlib import Path
from types import TracebackType
from typing import Any

from faults.injection import FAIL, FILES, IN, INTERRUPT, MAPS, MEMORY, OUT, SHORT, Injector, live_blocks
from faults.operations import Case, Folder, Operation, operations, settle, shown

import flatrecord

HANGS = 900  # seconds for one operation
COUNTS = ("attempts", "swallowed", "late", "named")
REPEATED = 12  # failures at one moment that are looked at for leaks
PACKAGE, ROOT = str(Path(flatrecord.__file__).parent), Path(__file__).parents[2]
# Where there is no memory for the tuple of a dict's iterator, CPython 3.11 ends the process; torch does so at more places.
CRASHING = re.compile(r"\.items\(\)|\btorch\.")
# And it loses what these were given, or what was put into an empty dict, where there is none for the result.
LEAKING = re.compile(r"\b(list|sorted|dict|setdefault|zip)\b|\] = ")


class Outcome:
    """What came of one attempt."""

    def __init__(self) -> None:
        self.result: list[object] = []
        self.error: BaseException | None = None
        self.fired = False
        self.traceback: TracebackType | None = None

    def failed(self, error: BaseException, keep: bool) -> None:
        self.traceback = error.__traceback__ if keep else None
        # It would hold what the operation had in hand.
        self.error = error.with_traceback(None)
        error.__context__ = error.__cause__ = None


class Hook:
    """No memory for CPython's n-th allocation, by the hook that its own tests have."""

    errors: tuple[type[BaseException], ...] = (MemoryError,)
    first = 1

    def __init__(self) -> None:
        import _testcapi

        self._set, self._remove = _testcapi.set_nomemory, _testcapi.remove_mem_hooks

    def attempt(self, run: Callable[[], object], n: int, keep: bool = False) -> Outcome:
        outcome, last, probes = Outcome(), n + 1, repeat(None, n + 1)
        try:
            try:
                self._set(n, last)
                outcome.result.extend(map(call, (run,)))
            except BaseException as error:
                self._remove()
                outcome.failed(error, keep)
            # It has not struck yet if it does so now.
            for _ in probes:
                object()
            outcome.fired = True
        except MemoryError:
            pass
        finally:
            self._remove()
        return outcome


class Calls:
    """The n-th call of the C library fails, is short, or comes with a SIGINT."""

    def __init__(self, injector: Injector, *errors: type[BaseException], code: int | None = None, first: int = 1) -> None:
        self.injector, self.errors, self.code, self.first = injector, errors, code, first

    def attempt(self, run: Callable[[], object], n: int, keep: bool = False) -> Outcome:
        outcome, injector = Outcome(), self.injector
        injector.prepare()
        try:
            try:
                injector.start(n)
                outcome.result.extend(map(call, (run,)))
            finally:
                injector.stop()
            for _ in repeat(None, 3):  # a signal that is noted already comes here at the latest
                pass
        except BaseException as error:
            outcome.failed(error, keep)
        injector.stop()
        outcome.fired = injector.fired > 0
        return outcome


class Lines:
    """A KeyboardInterrupt at the n-th line of the package's own Python code, with which no real one can compete."""

    errors: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
    first = 1

    def attempt(self, run: Callable[[], object], n: int, keep: bool = False) -> Outcome:
        outcome, seen = Outcome(), 0

        def local(frame: Any, event: str, argument: object) -> Any:
            nonlocal seen
            if event == "line":
                seen += 1
                if seen == n:
                    outcome.fired = True
                    raise KeyboardInterrupt
            return local

        def trace(frame: Any, event: str, argument: object) -> Any:
            return local if frame.f_code.co_filename.startswith(PACKAGE) else None

        try:
            try:
                sys.settrace(trace)
                outcome.result.extend(map(call, (run,)))
            finally:
                sys.settrace(None)
        except BaseException as error:
            outcome.failed(error, keep)
        return outcome


def failing(groups: int, code: int) -> Calls:
    return Calls(Injector(groups, FAIL, code), OSError, MemoryError, code=code)


KINDS: dict[str, Callable[[], Any]] = {
    "hook": Hook,
    "memory": lambda: Calls(Injector(MEMORY | MAPS, FAIL, errno.ENOMEM), MemoryError, OSError, code=errno.ENOMEM),
    "maps": lambda: Calls(Injector(MAPS, FAIL, errno.ENOMEM), MemoryError, OSError, code=errno.ENOMEM),
    "interrupts": lambda: Calls(Injector(MEMORY | MAPS | OUT | IN | FILES, INTERRUPT), KeyboardInterrupt),
    "lines": Lines,
    "full": lambda: failing(OUT, errno.ENOSPC),
    "broken": lambda: failing(OUT | IN | FILES, errno.EIO),
    "short": lambda: Calls(Injector(OUT | IN, SHORT)),
    "all short": lambda: Calls(Injector(OUT | IN, SHORT, every=True)),
    "retried": lambda: Calls(Injector(OUT | IN, FAIL, errno.EINTR)),
    "often retried": lambda: Calls(Injector(OUT | IN, FAIL, errno.EINTR, every=True), first=2),  # or it never ends
}


class Sweep:
    """All moments of one operation.

    Attributes
    ----------
    problems : list of str
        What was not as it has to be.
    """

    def __init__(self, operation: Operation, fault: Any, apart: bool) -> None:
        self.operation, self.fault, self.apart = operation, fault, apart
        self.problems: list[str] = []
        self.errors: Counter[str] = Counter()
        self.attempts = self.swallowed = self.late = self.named = self.crashes = 0
        for _ in range(3):  # what is made at the first time, and kept, is none of the operation's
            reference = operation.make()
            self.before = [shown(value) for value in reference.inputs]
            reference = operation.make()
            self.result = shown(reference.run())
            self.after = [shown(value) for value in reference.inputs]
        self.interrupts = KeyboardInterrupt in fault.errors

    def report(self) -> dict[str, Any]:
        return {
            "operation": self.operation.name,
            "errors": dict(self.errors),
            "problems": self.problems[:8],
            "count": len(self.problems),
            **{name: getattr(self, name) for name in (*COUNTS, "crashes")},
        }

    def run(self, leaks: bool) -> None:
        n, fired = self.fault.first, True
        while fired:
            fired = self.attempt_apart(n) if self.apart else self.attempt(n)
            n += 1
        self.last = n
        if leaks:
            self.check_leaks()

    def attempt_apart(self, n: int) -> bool:
        """`attempt` in a child process, which may be ended by what CPython, NumPy and torch do where there is no memory."""
        told, tell = os.pipe()
        said = os.memfd_create("crash")
        child = os.fork()
        if child == 0:
            os.dup2(said, 2)
            before, self.problems, self.errors = vars(self).copy(), [], Counter()
            fired = self.attempt(n)
            found = {name: getattr(self, name) - before[name] for name in COUNTS}
            os.write(tell, json.dumps([fired, found, self.problems, dict(self.errors)]).encode())
            os._exit(0)
        os.close(tell)
        with open(told, "rb") as file:
            data = file.read()
        _, status = os.waitpid(child, 0)
        with open(said, "rb") as file:
            file.seek(0)
            words = file.read().decode()
        if status:
            self.attempts += 1
            self.check_crash(n, status, words)
            return True
        fired, found, problems, errors = json.loads(data)
        for name, count in found.items():
            setattr(self, name, getattr(self, name) + count)
        self.problems += problems
        self.errors.update(errors)
        return bool(fired)

    def check_crash(self, n: int, status: int, words: str) -> None:
        """Whether it was not our code that ended the process."""
        place = re.search(r'File "(.+?)", line (\d+)', words)
        path, line = (place[1], linecache.getline(place[1], int(place[2])).strip()) if place else ("", "")
        theirs = path and not path.startswith((PACKAGE, str(ROOT / "tests")))
        if theirs or CRASHING.search(line):
            self.crashes += 1
        else:
            self.problems.append(f"{n}: the process ended with status {status} at {path}: {line or words:.500}")

    def attempt(self, n: int) -> bool:
        descriptors = len(os.listdir("/proc/self/fd"))
        case = self.operation.make()
        outcome = self.fault.attempt(case.run, n)
        if not outcome.fired:
            return False
        self.attempts += 1
        try:
            self.check(case, outcome)
        except Exception as error:
            self.problems.append(f"{n}: {type(error).__name__}: {error!s:.500} after {outcome.error!r:.300}")
        del case, outcome.result  # a record that shows an unfinished file has it open
        left = len(os.listdir("/proc/self/fd")) - descriptors
        if left > 0:
            gc.collect()
            left = len(os.listdir("/proc/self/fd")) - descriptors
        # Python code that is interrupted after os.open() has nothing to close. And CPython 3.11 never lets go of the arguments of a
        # function where there is no memory for the cell of one of its variables.
        if left > 0 and not self.interrupts and not (self.operation.maps and isinstance(self.fault, Hook)):
            self.problems.append(f"{n}: {left} descriptors are left open")
        return True

    def check(self, case: Case, outcome: Outcome) -> None:
        error = outcome.error
        if error is not None and not outcome.result:
            self.errors[type(error).__name__] += 1
            self.named += "key " in " ".join([str(error), *getattr(error, "__notes__", ())])
            assert self.is_right(error), f"not the right error, with notes {getattr(error, '__notes__', ())}"
        else:
            self.swallowed += 1
        found = [shown(value) for value in case.inputs]
        if outcome.result:
            result = shown(outcome.result[0])
            assert result == self.result, f"came through, and gave {differences(result, self.result)}"
        elif self.interrupts and same_apart_from_folders(case, found, self.after) and found != self.before:
            # All was done already. What a call in Python gives is lost then, as it is between any two lines.
            self.late += 1
            assert case.in_python or self.result is None, "what was made is lost"
            return
        elif case.whole is not None:
            case.whole(error)
        else:
            for value, now, before, after in zip(case.inputs, found, self.before, self.after, strict=True):
                late = isinstance(value, Folder) and now == after
                assert own(now) == own(before) or late, f"the input is changed: {differences(now, before)}"
            if case.again:
                again, result = own(shown(case.run())), own(self.result)
                assert again == result, f"the next try gave {differences(again, result)}"
                # What came back as an equal copy is taken, which has to be copied otherwise.
                found, after = own([shown(value) for value in case.inputs]), own(self.after)
                assert found == after, f"after the next try the input is not as after any: {differences(found, after)}"
        if outcome.result:
            assert found == self.after, f"the input is not as after any run: {differences(found, self.after)}"

    def is_right(self, error: BaseException) -> bool:
        # dict.setdefault of CPython 3.13.0 says so where it has no memory.
        if isinstance(error, SystemError) and "setdefault" in str(error) and MemoryError in self.fault.errors:
            return True
        if any(words in f"{type(error).__name__}: {error}" for words in self.operation.errors):
            return True
        code = getattr(self.fault, "code", None)
        return isinstance(error, self.fault.errors) and (not isinstance(error, OSError) or error.errno == code)

    def check_leaks(self) -> None:
        """Whether there is less and less memory the more often all fails, and where."""
        before = self.once_more(range(1, self.last))
        for _ in range(4):
            now = self.once_more(range(1, self.last))
            if now <= before:
                return
            before = now
        for n in range(1, self.last):
            # What is kept for later, in slots of NumPy's and CPython's, is filled by now.
            self.once_more([n] * REPEATED)
            before = self.once_more([n] * REPEATED)
            growth = self.once_more([n] * REPEATED) - before
            if growth >= REPEATED and (place := self.place_of(n)) is not None:
                self.problems.append(f"{n}: leaks {growth / REPEATED} blocks at {place}")

    def once_more(self, moments: Iterable[int]) -> int:
        for n in moments:
            self.fault.attempt(self.operation.make().run, n)
        gc.collect()
        return live_blocks()

    def place_of(self, n: int) -> str | None:
        """Where it fails at this moment, if that is in our code and not in a function that leaks itself."""
        place = None
        for _ in range(REPEATED):  # objects that are kept for later shift the moments now and then
            outcome = self.fault.attempt(self.operation.make().run, n, keep=True)
            frames = traceback.extract_tb(outcome.traceback)
            if not frames:
                continue
            path = str(ROOT / frames[-1].filename)
            line = linecache.getline(path, frames[-1].lineno or 0).strip()
            ours = path.startswith((PACKAGE, str(ROOT / "src"))) or self.operation.name == "leaking"
            if not ours or LEAKING.search(line):
                return None
            place = f"{path}:{frames[-1].lineno}: {line}"
        return place


def same_apart_from_folders(case: Case, found: list[Any], wanted: list[Any]) -> bool:
    return all(now == then for value, now, then in zip(case.inputs, found, wanted, strict=True) if not isinstance(value, Folder))


def own(found: Any) -> Any:
    """What `shown` gave, without saying whether own memory was taken or copied."""
    if isinstance(found, (list, tuple)):
        return type(found)(map(own, found))
    return "own" if isinstance(found, str) and found in ("taken", "snapshot") else found


def differences(found: Any, wanted: Any) -> str:
    """Where two results of `shown` differ."""
    if isinstance(found, (list, tuple)) and isinstance(wanted, (list, tuple)) and len(found) == len(wanted):
        return "; ".join(differences(a, b) for a, b in zip(found, wanted, strict=True) if a != b)
    return f"{found!r:.150} in place of {wanted!r:.150}"


def main(kind: str, group: str, folder: str, *only: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts us in the background ignores it
    found = operations(group, folder)
    if group == "files":
        import flatrecord.safetensors

        # So that there are several batches of what is small.
        flatrecord.safetensors.FILE_PIECE = flatrecord.safetensors.STREAM_PIECE = 5000  # type: ignore[attr-defined]  # imported there
    fault = KINDS[kind]()
    settle()
    for operation in found:
        if only and operation.name not in only:
            continue
        if operation.threads and kind == "hook":
            continue
        faulthandler.dump_traceback_later(HANGS, exit=True)
        print(operation.name, file=sys.stderr, flush=True)
        sweep = Sweep(operation, fault, kind in ("hook", "memory") and operation.apart)
        # Of the core alone: torch and much of Python's library leak themselves where there is no memory.
        sweep.run(leaks=kind in ("hook", "memory") and group in ("core", "controls"))
        print(json.dumps(sweep.report()), flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(*sys.argv[1:])
