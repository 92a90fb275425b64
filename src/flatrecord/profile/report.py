"""A profile as a person reads it in a terminal."""

from __future__ import annotations

import io
import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..sizes import shown
from ..terminal import printable
from .results import Profile, Share

LEAST_WIDTH = 120  # of what is not a terminal
LEAST_SOURCE = 20  # characters of a line of a program that tell something
PEAK = "VmHWM" if sys.platform == "linux" else "ru_maxrss"
UNTOUCHED = 0.5  # models by which the heap may be more than the process, before that is worth a sentence


def reported(profile: Profile) -> str:
    """The sizes, who held the peak, and who held more than one model: text for standard output, in colour if that is a terminal."""
    text = io.StringIO()
    terminal = Console(emoji=False)
    width = terminal.width if terminal.is_terminal else max(terminal.width, LEAST_WIDTH)
    color = sys.stdout.isatty() and not terminal.no_color
    console = Console(file=text, force_terminal=color, no_color=not color, width=width, emoji=False, markup=False, highlight=False)
    _print(profile, console)
    return text.getvalue()


def _print(profile: Profile, console: Console) -> None:
    capture = profile.capture
    console.print(f"\n{profile.title}: {_ending(profile)}", style="bold", soft_wrap=True)
    models = f"{profile.ratio:.1f} models, " if profile.ratio is not None else ""
    before = int(profile.notes.started.get("resident", 0))
    facts = [
        ("model", *_model(profile)),
        ("peak", shown(capture.counted), f"{models}{capture.peak_time - profile.began:.2f} s after the beginning"),
        ("imports", shown(capture.imports), "of libraries as they were imported: not counted above"),
        ("process", shown(profile.resident), f"its memory at most ({PEAK}), of which {shown(before)} before it began"),
    ]
    widest = max(len(size) for _, size, _ in facts)
    for name, size, what in facts:
        console.print(f"{name:<7}  {size:<{widest}}  {what}", style="bold" if name == "peak" else "", soft_wrap=True)
    console.print()
    console.print(_held(profile, console.width))
    beyond = [share for share in profile.shares() if share.beyond]
    if beyond:
        console.print("\nBeyond one model:", style="bold red")
    for share in beyond:
        console.print(_beyond(profile, share), soft_wrap=True)
    if profile.model and capture.peak - profile.resident > UNTOUCHED * profile.model:
        console.print(
            "\nThe process never had so much in memory: mappings of files, and memory that is not touched, count in full.", soft_wrap=True
        )


def _ending(profile: Profile) -> str:
    if profile.exit_status > 128:
        return f"ended by signal {profile.exit_status - 128} after {profile.seconds:.1f} s; what was seen until then"
    failed = f"exit status {profile.exit_status} after " if profile.exit_status else ""
    return f"{failed}{profile.seconds:.1f} s"


def _model(profile: Profile) -> tuple[str, str]:
    seen = profile.seen
    if seen is not None:
        arrays = f"{seen.entries} array{'' if seen.entries == 1 else 's'}"
        return shown(seen.nbytes), f"the largest that passed through: {seen.name} at {printable(str(seen.place))}, {arrays}"
    if profile.model is not None:
        return shown(profile.model), "as given"
    return "unknown", "no record, state_dict or file of one passed through: give --model-bytes"


def _held(profile: Profile, width: int) -> Table:
    """Who held the peak, in lines of so many characters."""
    rows, styles = [], []
    for share in profile.shares():
        models = "" if share.models is None else f"{share.models:.2f}"
        name, since, source = "all others", "", ""
        if share.holder is not None:
            place = share.holder.blame.place
            name, source = printable(f"{place}{place.inside}"), printable(place.source)
            since = f"{max(share.holder.since - profile.began, 0):.2f} s"
        rows.append((name, shown(share.nbytes), models, since, source))
        styles.append("red" if share.beyond else "")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
    headings = ("held at the peak by", "bytes", "models", "since")
    room = width - sum(3 + max(map(len, column)) for column in zip(headings, *(row[:-1] for row in rows), strict=True)) - 2
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    if room >= LEAST_SOURCE:
        table.add_column("line", no_wrap=True)
    for (*cells, source), style in zip(rows, styles, strict=True):
        cells += [source if len(source) <= room else source[: room - 1] + "…"] if room >= LEAST_SOURCE else []
        table.add_row(*map(Text, cells), style=style)
    return table


def _beyond(profile: Profile, share: Share) -> Text:
    """What a line allocated while a whole model was there already, and from where it was called."""
    assert profile.model
    held = f" holds {share.beyond / profile.model:.1f} models more ({shown(share.beyond)})"
    if share.holder is None:
        return Text(f"  other lines together:{held}")
    blame = share.holder.blame
    text = Text("  ").append(printable(str(blame.place)), "bold red").append(printable(blame.place.inside) + held)
    text.append(f", by {blame.via}" if blame.via else "")
    callers = printable(" from ".join(map(str, blame.callers)))
    return text.append(f", called from {callers}" if callers else "")
