"""A profile as a picture: heap and process memory over time, who held it, and what was called meanwhile."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

matplotlib.use("agg")  # before pyplot chooses
import matplotlib.pyplot as plt

from ..sizes import UNITS
from .places import Place
from .results import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, QUIET, PROCESS = "#1f2430", "#7b8494", "#1f2430"
COLORS = ("#1b7f5c", "#c2452d", "#3d6fb4", "#d99a2b", "#7d5ba6", "#4fa3a5")  # of lines, those that held most at the peak first
OTHERS = "#c9ced6"
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "svg.fonttype": "none",
    "text.parse_math": False,
}
LANES = 12  # calls and phases that are shown
WIDEST = 60  # characters of a line's source


def draw(profile: Profile, path: Path) -> None:
    """Write the picture to `path`, in the format of its suffix."""
    with plt.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # in a name that the font cannot write
        lanes = _lanes(profile)
        height = 0.28 * max(len(lanes), 1)
        figure, (memory, calls) = plt.subplots(
            2, 1, sharex=True, figsize=(11, 5.6 + height), layout="constrained", height_ratios=(4.6, height + 0.25)
        )
        _draw_memory(profile, memory)
        _draw_lanes(profile, calls, lanes)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _draw_memory(profile: Profile, axis: Axes) -> None:
    """Stacked: what the lines held; above it the process; across it the model's size."""
    capture = profile.capture
    unit, name = _unit(max(int(capture.heap.max()), int(capture.resident.max())))
    seconds = capture.times - profile.began
    shown = sorted(capture.holders[: len(COLORS)], key=lambda holder: holder.since)
    layers = [holder.history / unit for holder in shown]
    rest = capture.heap / unit - sum(layers, np.zeros(len(seconds)))
    labels = ["libraries and other lines", *(_label(holder.blame.place) for holder in shown)]
    colors = [OTHERS, *COLORS[: len(layers)]]
    areas = axis.stackplot(seconds, rest, *layers, colors=colors, linewidth=0.4, edgecolor="white")
    process = axis.plot(seconds, capture.resident / unit, color=PROCESS, linewidth=1.6)
    top = max(float(capture.heap.max()), float(capture.resident.max())) / unit
    if profile.model:
        _draw_models(axis, profile.model / unit, top)
    when, peak = capture.peak_time - profile.began, capture.peak / unit
    above = max(peak, float(np.interp(when, seconds, capture.resident)) / unit)  # of the process, whose line is not to be hidden
    axis.plot([when], [peak], "o", color=INK, markersize=5, zorder=5)
    models = f"{profile.ratio:.1f} models" if profile.ratio is not None else f"{peak:.2f} {name}"
    right = when > 0.6 * seconds[-1]
    axis.annotate(
        f"peak: {models}", (when, above), xytext=(-8 if right else 8, 8), textcoords="offset points",
        ha="right" if right else "left", weight="bold",
    )  # fmt: skip
    axis.set_ylim(0, max(top * 1.18, 1e-9))
    axis.set_xlim(0, max(float(seconds[-1]), 1e-3))
    axis.set_ylabel(f"memory, {name}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(f"{profile.title}: what its lines held", loc="left", fontsize=13, pad=12)
    axis.legend(
        [*process, *areas[::-1]], ["memory of the process", *labels[::-1]], loc="upper left", bbox_to_anchor=(1.01, 1.0),
        frameon=False, fontsize=8.5, borderaxespad=0,
    )  # fmt: skip


def _draw_models(axis: Axes, model: float, top: float) -> None:
    """A line at each multiple of the model's size; at a few of them if there are many."""
    step = max(1, math.ceil(top / model / 6))
    for multiple in range(step, int(top / model * 1.1) + 1, step):
        axis.axhline(multiple * model, color=INK, linewidth=1, linestyle=(0, (4, 4)), alpha=0.75)
        axis.annotate(
            f"{multiple} × model", (0.004, multiple * model), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", fontsize=8.5,
        )  # fmt: skip


def _lanes(profile: Profile) -> list[tuple[str, list[tuple[float, float]]]]:
    """Calls and phases by name and line, each with its times; those that took longest, in the order in which they began."""
    lanes: dict[str, list[tuple[float, float]]] = {}
    for call, began, ended in profile.moments():
        label = call.name if call.place is None else f"{call.name}  {call.place}"
        lanes.setdefault(label, []).append((began, ended - began))
    longest = sorted(lanes, key=lambda label: -sum(length for _, length in lanes[label]))[:LANES]
    return [(label, lanes[label]) for label in lanes if label in longest]


def _draw_lanes(profile: Profile, axis: Axes, lanes: list[tuple[str, list[tuple[float, float]]]]) -> None:
    """A row a call or phase, with its name to the right."""
    shortest = profile.seconds / 300  # of what could still be seen
    for row, (label, times) in enumerate(lanes):
        axis.broken_barh([(began, max(length, shortest)) for began, length in times], (row - 0.32, 0.64), color=QUIET)
        axis.text(1.012, row, label, transform=axis.get_yaxis_transform(), va="center", fontsize=8.5, clip_on=False)
    if not lanes:
        axis.text(0.5, 0.5, "no model passed through, and no phase was named", ha="center", color=QUIET, transform=axis.transAxes)
    axis.set_ylim(max(len(lanes), 1) - 0.4, -0.6)
    axis.set_yticks([])
    axis.set_xlabel("seconds")
    axis.set_ylabel("calls\nand phases", rotation=0, ha="right", va="center")
    axis.spines[["top", "right", "left"]].set_visible(False)


def _label(place: Place) -> str:
    cut = place.source if len(place.source) <= WIDEST else place.source[: WIDEST - 1] + "…"
    return f"{place}\n{cut}"


def _unit(nbytes: int) -> tuple[int, str]:
    name = next((name for name in ("GiB", "MiB") if nbytes >= UNITS[name]), "KiB")
    return UNITS[name], name
