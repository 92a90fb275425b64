"""The cases of ``python -m profiling compare``: one contender on one path, in a process of its own.

What it does is warmed up with a model of one entry, done a few times with the clock running, and once more under memray, which makes
it slow.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from flatrecord._core.buffer import empty_cache
from flatrecord.profile.resident import forget_peak, status
from flatrecord.testing import measure_peak

from .paths import PATHS, Contender, Place, Size
from .process import ROOT, Child

QUIET = Child(quiet=True)
SMALL = 4 << 20  # bytes of the entry that is warmed up with: all threads help


def phases_of(path: str) -> tuple[str, str]:
    """What preparing and the work are called over time; nothing if the work says so itself."""
    return PATHS[path].prepares, "" if PATHS[path].stepwise else PATHS[path].title


def warm(work: Callable[[], object]) -> int:
    """Do something for the first time; returns what is resident from then on."""
    work()
    gc.collect()
    empty_cache()  # of what was only to be loaded
    return status("VmRSS")


def measured(
    place: Place,
    prepare: Callable[[], Any],
    work: Callable[[Any], Any],
    is_right: Callable[[Any, bool], bool],
    passes: int,
    names: tuple[str, str],
    alone: bool,
) -> dict[str, Any]:
    """Do the work `passes` times and once under memray; what it took at most the first time, in bytes, and the time of the fastest.

    Later passes count for what we promise (``highest``, ``beside``), but not in a comparison: they find memory that the look at the
    values has left: stock Flower's arrays are copied for it, and glibc keeps the pieces.

    Parameters
    ----------
    alone : bool
        Whether memray sees the work alone, and not what `prepare` makes for it.
    """
    seconds, peaks, besides, memory, equal, child = [], [], [], {}, True, place.child
    for i in range(passes):
        child.phase(names[0])
        subject = prepare()
        before = status("VmRSS")
        forget_peak()
        if names[1]:
            child.phase(names[1])
        began = time.perf_counter()
        result = work(subject)
        seconds.append(time.perf_counter() - began)
        peaks.append(max(status("VmHWM") - place.interpreter, *place.steps.values(), 0))
        besides.append(peaks[-1] + place.interpreter - before)
        if i == 0:
            memory = dict(resident=peaks[0], end=status("VmRSS") - place.interpreter, steps=dict(place.steps))
        child.phase("end")
        equal = is_right(result, i == 0) and equal
        place.child = child = QUIET  # one pass is enough to be drawn
        del subject, result
        gc.collect()  # a network is in cycles
    with nullcontext() if alone else measure_peak() as whole:
        subject = prepare()
        with measure_peak() if alone else nullcontext() as part:
            result = work(subject)
    heap = part or whole
    assert heap is not None
    equal = is_right(result, False) and equal
    del subject, result
    return memory | dict(seconds=min(seconds), highest=max(peaks), beside=max(besides), allocated=heap.nbytes, equal=equal)


def compare(child: Child, path: str, name: str, entries: str, entry: str, passes: str, file: str, alone: str) -> None:
    """What one contender takes on one path."""
    contender = PATHS[path].named(name)
    place = Place(Size(int(entries), int(entry)), file, child)
    case = through_a_pipe if contender.receive else by_itself
    found = case(place, path, contender, int(passes), alone == "alone")
    child.result(nbytes=place.size.nbytes, interpreter=place.interpreter, **found)


def by_itself(place: Place, path: str, contender: Contender, passes: int, alone: bool) -> dict[str, Any]:
    """A path that one process goes by itself."""
    small = Place(place.size.one(SMALL), place.path + ".1", QUIET)

    def once() -> None:
        contender.is_right(contender.work(contender.prepare(small), small), small, True)

    place.interpreter = warm(once)
    return measured(
        place,
        lambda: contender.prepare(place),
        lambda subject: contender.work(subject, place),
        lambda result, thoroughly: contender.is_right(result, place, thoroughly),
        passes,
        phases_of(path),
        alone,
    )


def through_a_pipe(place: Place, path: str, contender: Contender, passes: int, alone: bool) -> dict[str, Any]:
    """A path to another process, which is started for it."""
    place.peer, right = socket.socketpair()
    small = Place(place.size.one(SMALL), place.path, QUIET, place.peer)
    arguments = [path, contender.name, *map(str, (*place.size, passes)), "alone" if alone else "all"]
    command = [sys.executable, "-m", "profiling.compare_case", *arguments]

    def work(place: Place, subject: Any) -> None:
        contender.work(subject, place)
        place.peer.recv(1)  # it has all

    def prepare(place: Place) -> Any:
        subject = contender.prepare(place)
        place.peer.recv(1)  # it is ready
        return subject

    with place.peer, right, subprocess.Popen(command, cwd=ROOT, stdin=right.fileno(), stdout=subprocess.PIPE, text=True) as other:
        right.close()  # so that the end of the one process is seen by the other
        place.interpreter = warm(lambda: work(small, prepare(small)))
        found = measured(
            place,
            lambda: prepare(place),
            lambda subject: work(place, subject),
            lambda result, thoroughly: True,
            passes,
            phases_of(path),
            alone,
        )
        assert other.stdout is not None
        receiver = json.loads(other.stdout.read())
    return found | {"receiver": receiver, "equal": receiver["equal"]}


def receive(path: str, name: str, entries: str, entry: str, passes: str, alone: str) -> None:
    """The other process of `through_a_pipe`; its standard input is the socket."""
    contender, size = PATHS[path].named(name), Size(int(entries), int(entry))
    assert contender.receive is not None
    with socket.socket(fileno=os.dup(0)) as peer:
        place = Place(size, "", QUIET, peer)
        small = Place(size.one(SMALL), "", QUIET, peer)

        def received(place: Place) -> Any:
            values = contender.receive(place)  # type: ignore[misc]  # as asserted
            peer.send(b"x")
            return values

        def once() -> None:
            peer.send(b"x")
            place.is_model(received(small), True)

        place.interpreter = warm(once)
        found = measured(
            place,
            lambda: peer.send(b"x"),
            lambda ready: received(place),
            place.is_model,
            int(passes),
            ("", ""),
            alone == "alone",
        )
    print(json.dumps(found))


def before(child: Child, path: str, name: str, entries: str, entry: str, file: str) -> None:
    """What a contender needs to find, made by a process of its own."""
    contender, size = PATHS[path].named(name), Size(int(entries), int(entry))
    assert contender.before is not None
    contender.before(Place(size, file, child))
    contender.before(Place(size.one(SMALL), file + ".1", child))  # to be warmed up with
    for written in Path(file).parent.glob(Path(file).name + "*"):
        with open(written, "rb") as left:
            os.fsync(left.fileno())  # so that nobody pays for what another has written


if __name__ == "__main__":
    receive(*sys.argv[1:])
