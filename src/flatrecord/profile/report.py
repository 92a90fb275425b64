"""A profile as a person reads it in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..sizes import shown
from .results import Profile, Share

LEAST_WIDTH = 120  # of what is not a terminal
LEAST_SOURCE = 20  # characters of a line of a program that tell something


def print_report(profile: Profile, console: Console) -> None:
    """Print the sizes, who held the peak, and who held more than one model."""
    capture = profile.capture
    console.print()
    console.print(f"{profile.title}: {_ending(profile)}", style="bold", highlight=False, markup=False)
    facts = Table.grid(padding=(0, 2))
    facts.add_row("model", *_model(profile))
    models = f"{profile.ratio:.1f} models, " if profile.ratio is not None else ""
    facts.add_row("peak", shown(capture.counted), Text(f"{models}{capture.peak_time - profile.began:.2f} s after the beginning", "bold"))
    facts.add_row("imports", shown(capture.imports), "of libraries as they were imported: not counted above")
    before = int(profile.notes.started.get("resident", 0))
    facts.add_row("process", shown(profile.resident), f"its memory at most (VmHWM), of which {shown(before)} before it began")
    console.print(facts, highlight=False)
    console.print()
    console.print(_held(profile, console.width), highlight=False)
    beyond = [share for share in profile.shares() if share.beyond]
    if beyond:
        console.print("\nBeyond one model:", style="bold red")
    for share in beyond:
        console.print(_beyond(profile, share), highlight=False, soft_wrap=True)


def standard_output() -> Console:
    """Where a report goes; what is not a terminal has room for long lines."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, LEAST_WIDTH))


def _ending(profile: Profile) -> str:
    if profile.exit_status > 128:
        return f"ended by signal {profile.exit_status - 128} after {profile.seconds:.1f} s; what was seen until then"
    failed = f"exit status {profile.exit_status} after " if profile.exit_status else ""
    return f"{failed}{profile.seconds:.1f} s"


def _model(profile: Profile) -> tuple[str, str]:
    seen = profile.seen
    if seen is not None:
        return shown(seen.nbytes), f"the largest that passed through: {seen.name} at {seen.place}, {_arrays(seen.entries)}"
    if profile.model is not None:
        return shown(profile.model), "as given"
    return "unknown", "no record, state_dict or file of one passed through: give --model-bytes"


def _arrays(count: int) -> str:
    return f"{count} array{'' if count == 1 else 's'}"


def _held(profile: Profile, width: int) -> Table:
    """Who held the peak, in lines of so many characters."""
    shares = profile.shares()
    rows = []
    for share in shares:
        place = share.holder.blame.place
        since = f"{max(share.holder.since - profile.began, 0):.2f} s"
        rows.append((f"{place}{place.inside}", shown(share.holder.nbytes), _ratio(share.models), since, place.source))
    rest = profile.capture.counted - sum(share.holder.nbytes for share in shares)
    rows.append(("all others", shown(rest), _ratio(rest / profile.model if profile.model else None), "", ""))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
    headings = ("held at the peak by", "bytes", "models", "since")
    room = width - sum(3 + max(map(len, column)) for column in zip(headings, *(row[:-1] for row in rows), strict=True)) - 2
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    if room >= LEAST_SOURCE:
        table.add_column("line", no_wrap=True)
    styles = [*("red" if share.beyond else "" for share in shares), ""]
    for (*cells, source), style in zip(rows, styles, strict=True):
        cells += [source if len(source) <= room else source[: room - 1] + "…"] if room >= LEAST_SOURCE else []
        table.add_row(*map(Text, cells), style=style)
    return table


def _ratio(models: float | None) -> str:
    return "" if models is None else f"{models:.2f}"


def _beyond(profile: Profile, share: Share) -> Text:
    """What a line allocated while a whole model was there already, and from where it was called."""
    assert profile.model
    blame = share.holder.blame
    text = Text("  ").append(str(blame.place), "bold red")
    text.append(f"{blame.place.inside} holds {share.beyond / profile.model:.1f} models more ({shown(share.beyond)})")
    text.append(f", by {blame.via}" if blame.via else "")
    callers = " from ".join(map(str, blame.callers))
    return text.append(f", called from {callers}" if callers else "")
