"""Memory over time as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")  # before pyplot chooses
import itertools

import matplotlib.pyplot as plt

from .process import Run

__all__ = ["DOUBLED", "FLAT", "INK", "QUIET", "in_equal_phases", "memory_over_time", "plt"]

GIB = 1 << 30
INK, QUIET, FLAT, DOUBLED = "#1f2430", "#7b8494", "#1b7f5c", "#c2452d"


def memory_over_time(runs: list[tuple[Run, str]], model: str, nbytes: int, path: Path) -> None:
    """Draw a line a run: resident memory beyond the interpreter's, beside the model's size.

    A take is over in a millisecond and a snapshot is not, so each phase is drawn equally wide, with
    the seconds that it took.

    Parameters
    ----------
    runs : list of (Run, str)
        What was seen, with the same phases, and the line's name. The last is drawn as the doubled one.
    model, nbytes : str, int
        Name and size of the model, in bytes.
    path : Path
        The PNG to write.
    """
    plt.rcParams.update({"font.size": 11, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": QUIET})
    figure, axis = plt.subplots(figsize=(10, 5.2), layout="constrained")
    names = [name for name, _ in runs[0][0].phases[:-1]]
    for multiple in (1, 2):
        axis.axhline(multiple * nbytes / GIB, color=QUIET, linewidth=1, linestyle=(0, (4, 4)), zorder=1)
        axis.annotate(f"{multiple} × model", (0.02, multiple * nbytes / GIB), xytext=(0, 4), textcoords="offset points", color=QUIET)
    for phase in range(1, len(names)):
        axis.axvline(phase, color=QUIET, linewidth=0.6, alpha=0.6)
    for row, (run, title) in enumerate(runs):
        color = FLAT if row < len(runs) - 1 else DOUBLED
        where, memory = in_equal_phases(run)
        axis.fill_between(where, memory / GIB, color=color, alpha=0.10, linewidth=0)
        axis.plot(where, memory / GIB, color=color, linewidth=2.5, label=f"{title}: peak {run.result['peak'] / nbytes:.2f} × model")
        starts = [start for _, start in run.phases]
        for phase, (start, end) in enumerate(itertools.pairwise(starts)):
            if "record" not in names[phase]:
                continue  # making and checking the model is not what is measured
            axis.text(
                phase + 0.5, 0.055 - 0.045 * row, f"{end - start:.2g} s", color=color,
                ha="center", transform=axis.get_xaxis_transform(), fontsize=9,
            )  # fmt: skip
    axis.set_xticks([phase + 0.5 for phase in range(len(names))], names)
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(0, len(names))
    axis.set_ylim(0, 2 * nbytes / GIB * 1.15)
    axis.set_xlabel("time, each phase drawn equally wide", color=QUIET)
    axis.set_ylabel("resident memory of the process, GiB")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="upper left", bbox_to_anchor=(0.01, 0.84), frameon=False)
    axis.set_title(f"{model}, {nbytes / GIB:.2f} GiB: in and out of a record", loc="left", fontsize=13, pad=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def in_equal_phases(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Positions (the phase's number and the part of it that is over) and memory in bytes of a run's samples."""
    starts = np.array([start for _, start in run.phases])
    times = np.concatenate((run.times, starts))  # a phase shorter than the sampling still gets its two ends
    order = np.argsort(times, kind="stable")
    order = order[(times[order] >= starts[0]) & (times[order] <= starts[-1])]
    memory = np.concatenate((run.resident, run.marks))[order] - run.result["interpreter"]
    return np.interp(times[order], starts, np.arange(len(starts))), memory
