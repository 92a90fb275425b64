"""Peaks, memory over time and growth as pictures."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from . import growth
from .models import GIB
from .paths import PATHS
from .picture import DOUBLED, FLAT, INK, QUIET, in_equal_phases, plt
from .process import Run
from .report import seconds
from .results import Results, times_model

MIB = 1 << 20
PEER = "#aab2bd"
SAMPLES = 400  # of a line that are kept
DRAWN = {  # ours and the peer beside whom it is drawn over time
    ("to-arrays", "flatrecord, keep_input=False"): ("to-arrays", "flwr, keep_input=False"),
    ("load", "flatrecord"): ("load", "safetensors"),
    ("pipe", "flatrecord"): ("pipe", "safetensors"),
    ("wire-out", "flatrecord, the same at 1 Gbit/s"): ("wire-out", "flwr, the same at 1 Gbit/s"),
    ("wire-in", "flatrecord, Flower's objects"): ("wire-in", "flwr, Flower's objects"),
    ("round", "flatrecord"): ("round", "flwr"),
}
DRAWN |= {peer: peer for peer in DRAWN.values()}
LINES = ("#1b7f5c", "#2f6db3", "#8a5fb0", "#c98a1b", "#3a9ea5", "#6b7a2a", "#b0578d")
MARKERS = "osD^vP*"


class Bar(NamedTuple):
    """A library in the picture of peaks."""

    name: str
    resident: float
    allocated: float


def draw(found: Results, out: Path) -> dict[str, Path]:
    """Draw what there is to be drawn; the pictures by name."""
    plt.rcParams.update({"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": QUIET})
    plt.rcParams.update({"xtick.color": INK, "ytick.color": INK})
    made = {}
    if found["paths"]:
        made["peaks"] = _peaks(found)
    if found["timeline"]:
        made["timeline"] = _timeline(found)
    if found["growth"]:
        made["growth"] = _growth(found["growth"])
    for name, figure in made.items():
        figure.savefig(out / f"{name}.png", dpi=130)
        plt.close(figure)
    for name in {"peaks", "timeline", "growth"} - made.keys():
        (out / f"{name}.png").unlink(missing_ok=True)  # of an earlier run
    return {name: out / f"{name}.png" for name in made}


def _subtitle(figure: Figure, title: str, text: str) -> None:
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.12 / height, title, ha="left", va="top", fontsize=15, fontweight="bold")
    figure.text(0.012, 1 - 0.47 / height, text, ha="left", va="top", fontsize=10, color=QUIET)


def _legend(figure: Figure, handles: list[Any]) -> None:
    """What the colours say, at the right of the title."""
    where = (0.995, 1 - 0.05 / figure.get_figheight())
    figure.legend(handles=handles, loc="upper right", ncols=len(handles), frameon=False, bbox_to_anchor=where)


def _room(figure: Figure, inches: float, bottom: float = 0.0) -> None:
    """Leave so much room above, and below."""
    height = figure.get_figheight()
    rect = (0.006, bottom / height, 0.988, 1 - (inches + bottom) / height)
    figure.get_layout_engine().set(rect=rect)  # type: ignore[union-attr, call-arg]  # a ConstrainedLayoutEngine


# ------------------------------------------------------------------------------------------- peaks


def _groups(found: Results) -> list[tuple[str, list[Bar]]]:
    nbytes = found["model"]["nbytes"]
    groups = []
    for path, contenders in found["paths"].items():
        ends = [("", contenders)]
        if any("receiver" in result for result in contenders.values()):
            received = {name: result["receiver"] for name, result in contenders.items()}
            ends = [(", sender", contenders), (", receiver", received)]
        for end, results in ends:
            bars = [
                Bar(name, times_model(result, "resident", nbytes), times_model(result, "allocated", nbytes))
                for name, result in results.items()
            ]
            groups.append((PATHS[path].title.capitalize() + end, bars))
    return groups


def _peaks(found: Results) -> Figure:
    """A bar a library, path by path, in two columns of about the same length."""
    groups = _groups(found)
    lengths = np.cumsum([len(bars) + 1.8 for _, bars in groups])
    split = int(np.argmin(abs(lengths - lengths[-1] / 2))) + 1 if len(groups) > 2 else len(groups)
    columns = [column for column in (groups[:split], groups[split:]) if column]
    rows = max(sum(len(bars) + 1.8 for _, bars in column) for column in columns)
    figure, axes = plt.subplots(
        1, len(columns), figsize=(6.4 * len(columns), 1.6 + 0.25 * rows), squeeze=False, layout="constrained", sharex=True
    )
    _room(figure, 0.75)
    most = max(max(bar.resident, bar.allocated) for _, bars in groups for bar in bars)
    for axis, column in zip(axes[0], columns, strict=True):
        _column(axis, column, rows, max(most, 1.5))
    gib = found["model"]["nbytes"] / GIB
    _subtitle(figure, "Peak memory, as multiples of the model", f"{gib:g} GiB, each bar a fresh process; the model itself counts as 1")
    handles = [
        Patch(color=FLAT, label="flatrecord, VmHWM"),
        Patch(color=PEER, label="others, VmHWM"),
        Line2D([], [], color=INK, marker="|", markersize=11, markeredgewidth=2, linestyle="none", label="memray"),
    ]
    _legend(figure, handles)
    return figure


def _column(axis: Axes, groups: list[tuple[str, list[Bar]]], rows: float, most: float) -> None:
    at, ticks, labels = 0.0, [], []
    axis.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    for title, bars in groups:
        axis.text(0, at + 0.25, title, fontweight="bold", fontsize=11, va="center", transform=axis.get_yaxis_transform(), zorder=5,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
        for bar in bars:
            at += 1
            ours = bar.name.startswith("flatrecord")
            axis.barh(at, bar.resident, height=0.68, color=FLAT if ours else PEER, zorder=2)
            axis.plot([bar.allocated] * 2, [at - 0.34, at + 0.34], color=INK, linewidth=2, zorder=4, solid_capstyle="butt")
            axis.text(
                max(bar.resident, bar.allocated) + 0.03 * most, at, f"{bar.resident:.2f}", va="center", fontsize=9,
                color=FLAT if ours else INK, fontweight="bold" if ours else "normal", zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
            ticks.append(at)
            labels.append(bar.name)
        at += 1.8
    axis.set_yticks(ticks, labels)
    for label in axis.get_yticklabels():
        if label.get_text().startswith("flatrecord"):
            label.set(color=FLAT, fontweight="bold")
    axis.set_ylim(rows - 0.9, -0.9)
    axis.set_xlim(0, 1.12 * most)
    axis.tick_params(length=0)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.grid(axis="x", color=QUIET, alpha=0.2, zorder=0)
    axis.annotate(
        "the model", (1, 1), (4, 0), xycoords=("data", "axes fraction"), textcoords="offset points", va="top", fontsize=9, color=INK
    )
    axis.set_xlabel("× model", color=QUIET)


# -------------------------------------------------------------------------------------- over time


def over_time(path: str, name: str, seen: Run) -> dict[str, Any]:
    """A line of the picture, as numbers: memory as multiples of the model, phase by phase."""
    where, memory = in_equal_phases(seen)
    keep = np.unique(np.linspace(0, len(where) - 1, min(len(where), SAMPLES)).round().astype(int))
    if len(where) > SAMPLES:
        keep = np.union1d(keep, [int(memory.argmax())])
    starts = [start for _, start in seen.phases]
    return {
        "path": path,
        "name": name,
        "peak": seen.result["resident"] / seen.result["nbytes"],
        "phases": [phase for phase, _ in seen.phases[:-1]],
        "seconds": [round(end - start, 6) for start, end in itertools.pairwise(starts)],
        "where": where[keep].round(4).tolist(),
        "memory": (memory[keep] / seen.result["nbytes"]).round(4).tolist(),
    }


def _timeline(found: Results) -> Figure:
    """A panel a path, ours beside the peer."""
    panels: dict[str, list[dict[str, Any]]] = {}
    for line in found["timeline"]:
        panels.setdefault(line["path"], []).append(line)
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(down, across, figsize=(5.2 * across, 1.2 + 3.5 * down), squeeze=False, layout="constrained")
    _room(figure, 0.8, 0.1)
    figure.get_layout_engine().set(h_pad=0.14, w_pad=0.12)  # type: ignore[union-attr, call-arg]  # a ConstrainedLayoutEngine
    for axis, (path, lines) in zip(axes.flat, panels.items(), strict=False):
        _panel(axis, PATHS[path].title.capitalize(), lines)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    gib = found["model"]["nbytes"] / GIB
    _subtitle(
        figure,
        "Memory of the process over time",
        f"{gib:g} GiB; resident memory as multiples of the model, phases drawn equally wide with the seconds they took",
    )
    lines_of = {"flatrecord": FLAT, "peer": DOUBLED}
    _legend(figure, [Line2D([], [], color=color, linewidth=2.5, label=name) for name, color in lines_of.items()])
    return figure


def _panel(axis: Axes, title: str, lines: list[dict[str, Any]]) -> None:
    most = max(2.0, *(max(line["peak"], *line["memory"]) for line in lines))
    phases = lines[0]["phases"]
    axis.axhline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for phase in range(1, len(phases)):
        axis.axvline(phase, color=QUIET, linewidth=0.6, alpha=0.5)
    for row, line in enumerate(lines):
        ours = line["name"].startswith("flatrecord")
        color = FLAT if ours else DOUBLED
        axis.fill_between(line["where"], line["memory"], color=color, alpha=0.10, linewidth=0)
        axis.plot(line["where"], line["memory"], color=color, linewidth=2.2, zorder=3 if ours else 2)
        axis.text(
            0.015, 0.97 - 0.085 * row, f"{line['name']}: peak {line['peak']:.2f}", color=color, va="top", transform=axis.transAxes,
            fontsize=9.5, fontweight="bold" if ours else "normal", zorder=4,
        )  # fmt: skip
        for phase, took in enumerate(line["seconds"]):
            axis.text(
                phase + 0.5, -0.175 - 0.075 * row, f"{seconds(took)} s", color=color, ha="center", va="top",
                transform=axis.get_xaxis_transform(), fontsize=8.5,
            )  # fmt: skip
    narrow = len(phases) > 3
    labels = [name.replace(" → ", " →\n").replace("one step ", "one step\n") if narrow else name for name in phases]
    axis.set_xticks([phase + 0.5 for phase in range(len(phases))], labels, fontsize=8 if narrow else 9)
    axis.tick_params(length=0)
    axis.set_xlim(0, len(phases))
    axis.set_ylim(0, 1.32 * most)
    axis.set_yticks(range(int(most) + 1), ["0", "model", *(f"{i} ×" for i in range(2, int(most) + 1))])
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, loc="left", fontsize=12, fontweight="bold")


# ----------------------------------------------------------------------------------------- growth


def _growth(grown: dict[str, Any]) -> Figure:
    """Time, and memory beside the model, over entries and over bytes."""
    figure, axes = plt.subplots(2, 2, figsize=(14, 10.2), layout="constrained")
    _room(figure, 0.75)
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.15)  # type: ignore[union-attr, call-arg]  # a ConstrainedLayoutEngine
    for column, axis in enumerate(("entries", "sizes")):
        lines = {name: line["points"] for name, line in grown.get(axis, {}).items() if line["points"]}
        where = [point["entries"] if axis == "entries" else point["nbytes"] / GIB for points in lines.values() for point in points]
        for row, measure in enumerate(("seconds", "memory")):
            _lines(axes[row, column], axis, measure, lines)
            axes[row, column].set_xlim(min(where) / 1.3, max(where) * 1.3)
    _subtitle(
        figure,
        "How the cost grows",
        "Left: more and more entries in a model of one size. Right: larger and larger models with as many entries. "
        "Solid lines: VmHWM; dotted: memray. In brackets: slopes of straight lines.",
    )
    return figure


def _lines(axis: Axes, kind: str, measure: str, lines: dict[str, list[dict[str, Any]]]) -> None:
    ours = [name for name in lines if "flatrecord" in name]
    for name, points in lines.items():
        control = name not in ours
        color = DOUBLED if control else LINES[list(growth.GROWING).index(name.split(":")[0])]
        marker = "x" if control else MARKERS[list(growth.GROWING).index(name.split(":")[0])]
        where = [point["entries"] if kind == "entries" else point["nbytes"] / GIB for point in points]
        path = name.split(":")[0]
        title = name.split(": ")[1] if control else PATHS[path].title
        style: dict[str, Any] = {"color": color, "marker": marker, "markersize": 6, "linewidth": 1.8}
        style["linestyle"] = "--" if control else "-"
        if measure == "seconds":
            slope = growth.slope(points, kind, "seconds")
            label = f"{slope * 1e6:.2f} µs an entry" if kind == "entries" else f"{round(slope * 1e3 * GIB) + 0} ms a GiB"
            axis.plot(where, [max(point["seconds"], 1e-5) for point in points], label=f"{title} ({label})", **style)
        else:
            slope = growth.slope(points, kind, "resident")
            slope = round(slope / 1024, 2) if kind == "entries" else round(slope * GIB / MIB, 1)
            label = f"{slope + 0.0:.2f} KiB an entry" if kind == "entries" else f"{slope + 0.0:.1f} MiB a GiB"
            axis.plot(where, [max(point["resident"], 0) / MIB for point in points], label=f"{title} ({label})", **style)
            axis.plot(where, [point["allocated"] / MIB for point in points], color=color, linewidth=1, linestyle=":")
    first = next(iter(lines.values()))[0]
    same = f"({first['nbytes'] / MIB:g} MiB)" if kind == "entries" else f"({first['entries']} entries)"
    axis.set_xscale("log")
    axis.grid(color=QUIET, alpha=0.18)
    axis.spines[["top", "right"]].set_visible(False)
    if kind == "sizes":
        ticks = sorted({point["nbytes"] / GIB for points in lines.values() for point in points})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    else:
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.minorticks_off()
    axis.set_xlabel("entries" if kind == "entries" else "model, GiB")
    if measure == "seconds":
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
        axis.set_title(f"Time, seconds {same}", loc="left", fontsize=12, fontweight="bold")
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.45)  # room for the legend
    else:
        axis.set_yscale("symlog", linthresh=1, linscale=0.6)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_title(f"Memory beside the model, MiB {same}", loc="left", fontsize=12, fontweight="bold")
        most = max(point[peak] for points in lines.values() for point in points for peak in ("resident", "allocated")) / MIB
        axis.set_ylim(-0.5, 30 * max(most, 1))  # room for the legend
    axis.legend(loc="upper left", frameon=False, fontsize=8.5, ncols=2 if len(lines) > 4 else 1)
