"""The look of the tables that the programs print."""

from __future__ import annotations

from rich import box
from rich.table import Table


def table(*headings: str, title: str | None = None) -> Table:
    """An empty table with a column of names and some of numbers."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for i, heading in enumerate(headings):
        made.add_column(heading, justify="right" if i else "left", no_wrap=True)
    return made
