"""What a profile says: in terms of the model, who held how much of the peak and since when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .captures import Capture, Holder
from .notes import Call, Notes

SHOWN = 0.01  # of the model, or of the peak where no model is known: what holds less is not worth a line
COVERED, MOST = 0.9, 20  # but where many lines hold a little each: so much of the peak is shown, by so many at most


@dataclass
class Share:
    """What one line held at the peak.

    Attributes
    ----------
    holder : Holder or None
        The line; None for all that are not worth one.
    nbytes : int
        How much.
    models : float or None
        How many models that is.
    beyond : int
        How many of its bytes came when a whole model was there already.
    """

    holder: Holder | None
    nbytes: int
    models: float | None
    beyond: int


@dataclass
class Profile:
    """A program's profile.

    Attributes
    ----------
    title : str
        Script or module.
    exit_status : int
        As a shell gives it: 128 and the signal, where one ended it.
    capture : Capture
        What memray saw.
    notes : Notes
        What passed through.
    given : int or None
        The model's size in bytes, where the user has told it.
    """

    title: str
    exit_status: int
    capture: Capture
    notes: Notes
    given: int | None = None

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return float(self.notes.ended.get("time", self.capture.times[-1])) - self.began

    @property
    def began(self) -> float:
        """When, in seconds since the epoch."""
        return float(self.notes.started["time"])

    @property
    def model(self) -> int | None:
        """The model's size in bytes; None if it was not given and nothing passed through."""
        seen = self.notes.model
        return self.given or (seen.nbytes if seen else None)

    @property
    def seen(self) -> Call | None:
        """Where the model passed through; None if its size was given, or if it did not."""
        return None if self.given else self.notes.model

    @property
    def ratio(self) -> float | None:
        """The peak over the model, without what libraries had allocated as they were imported."""
        return self.capture.counted / self.model if self.model else None

    @property
    def resident(self) -> int:
        """The highest memory of the process, in bytes (VmHWM on Linux; of one that was killed, as far as it was seen)."""
        return int(self.notes.ended.get("peak", self.capture.resident.max()))

    def shares(self) -> list[Share]:
        """The lines that held the peak, the first to allocate first, and at last all others together."""
        holders, model = self.capture.holders, self.model
        beyond = self.capture.beyond(model) if model else np.zeros(len(holders), np.int64)
        least = SHOWN * (model or self.capture.peak)
        found: list[Share] = []
        covered = 0
        for holder, more in zip(holders, beyond, strict=True):  # those that held most come first
            if holder.nbytes >= least or (holder.nbytes and covered < COVERED * self.capture.counted and len(found) < MOST):
                found.append(Share(holder, holder.nbytes, model and holder.nbytes / model, int(more) if more >= least else 0))
                covered += holder.nbytes
        found.sort(key=lambda share: share.holder.since if share.holder else 0)
        rest = max(self.capture.counted - covered, 0)
        others = int(beyond.sum()) - sum(share.beyond for share in found)
        return [*found, Share(None, rest, model and rest / model, others if others >= least else 0)]

    def moments(self) -> Iterator[tuple[Call, float, float]]:
        """Calls and phases with the seconds from the program's beginning to theirs and to their end."""
        for call in self.notes.calls:
            yield call, call.began - self.began, min(call.ended - self.began, self.seconds)

    def as_json(self) -> dict[str, Any]:
        """All of it for other programs: sizes in bytes, times in seconds from the beginning."""
        seen = self.seen
        return {
            "program": self.title,
            "exit_status": self.exit_status,
            "seconds": self.seconds,
            "model": {
                "nbytes": self.model,
                "source": "given" if self.given else seen and seen.name,
                "entries": seen and seen.entries,
                "where": seen and seen.place and str(seen.place),
            },
            "peak": {
                "nbytes": self.capture.peak,
                "imports": self.capture.imports,
                "counted": self.capture.counted,
                "models": self.ratio,
                "seconds": self.capture.peak_time - self.began,
            },
            "process": {"peak": self.resident, "at_start": int(self.notes.started.get("resident", 0))},
            "held_at_peak": [
                {
                    "file": share.holder.blame.place.file,
                    "line": share.holder.blame.place.line,
                    "function": share.holder.blame.place.function,
                    "source": share.holder.blame.place.source,
                    "called": share.holder.blame.via,
                    "callers": [str(place) for place in share.holder.blame.callers],
                    "nbytes": share.nbytes,
                    "models": share.models,
                    "beyond_one_model": share.beyond,
                    "since": share.holder.since - self.began,
                }
                for share in self.shares()
                if share.holder is not None
            ],
            "calls": [
                {
                    "name": call.name,
                    "where": call.place and str(call.place),
                    "began": began,
                    "ended": ended,
                    "nbytes": call.nbytes,
                    "entries": call.entries,
                }
                for call, began, ended in self.moments()
            ],
        }
