"""What a program that is profiled writes down meanwhile, a JSON object a line, so that nothing is lost if it is killed."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from .places import Place

MOST = 10_000  # calls; what comes after is not written down, unless a larger model passes through
FILES = ("torch.", "safetensors.", "numpy.")


@dataclass
class Call:
    """A call through which a model passed, or a phase that the program named.

    Attributes
    ----------
    name : str
        What was called, or the phase's name.
    place : Place or None
        From where; None for a phase.
    began, ended : float
        When, in seconds since the epoch; `ended` is infinite if it did not end.
    nbytes, entries : int
        What the largest model takes that went in or came out, and how many arrays it has.
    """

    name: str
    place: Place | None
    began: float
    ended: float = float("inf")
    nbytes: int = 0
    entries: int = 0


@dataclass
class Notes:
    """All that was written down.

    Attributes
    ----------
    calls : list of Call
        In the order in which they began.
    started, ended : dict
        Of the program: ``time`` in seconds since the epoch, ``resident`` and ``peak`` memory of the process in bytes, and the
        folder of its package, its ``own``, if it is a module. Empty if it did not begin, or did not end by itself.
    """

    calls: list[Call] = field(default_factory=list)
    started: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Call | None:
        """The call with the largest model; None if none passed through.

        Of a call that knows only arrays, to or from a file, they may be data: it counts only where there is no record or network.
        """
        seen = [call for call in self.calls if call.nbytes]
        return max(seen, key=lambda call: (not call.name.startswith(FILES), call.nbytes), default=None)


class Writer:
    """Writes notes down until it is closed. May be used by several threads.

    Parameters
    ----------
    path : str
        The file to write.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", buffering=1, encoding="utf-8")
        self._lock = Lock()
        # A child's calls are not the program's, and its numbers would be those of others.
        os.register_at_fork(after_in_child=self._stop)
        self._stopped = False
        self._numbers = count(1)
        self._largest = 0

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._file.close()

    def say(self, **note: Any) -> None:
        """Write one down, unless it is too late."""
        if self._stopped:
            return
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps(note) + "\n")

    def _stop(self) -> None:
        self._stopped = True

    def begin(self, name: str, place: Place | None) -> int:
        """A call begins; its number."""
        number = next(self._numbers)
        if number <= MOST:
            self.say(call=number, name=name, place=place, began=time.time())
        return number

    def end(self, number: int, name: str, place: Place | None, nbytes: int = 0, entries: int = 0) -> None:
        """A call has ended, through which a model went that takes so many bytes in so many arrays."""
        if number > MOST and nbytes > self._largest:
            self.say(call=number, name=name, place=place, began=time.time())
        if number <= MOST or nbytes > self._largest:
            self.say(call=number, ended=time.time(), nbytes=nbytes, entries=entries)
        self._largest = max(self._largest, nbytes)


def read(path: Path) -> Notes:
    """Read what was written; an unfinished last line is left out."""
    notes, calls = Notes(), {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            note = json.loads(line)
        except ValueError:
            break
        if "call" not in note:
            notes.started = note.get("started", notes.started)
            notes.ended = note.get("ended", notes.ended)
        elif "name" in note:
            place = note["place"] and Place(*note["place"])
            calls[note["call"]] = Call(note["name"], place, note["began"])
        else:
            call = calls[note["call"]]
            call.ended, call.nbytes, call.entries = note["ended"], note["nbytes"], note["entries"]
    notes.calls = sorted(calls.values(), key=lambda call: call.began)
    return notes
