"""The command ``flatrecord``: what a file holds, the same in another format, a program's memory, and Flower with our records."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from . import __version__, hook
from .convert import Progress, convert, kind_of, opened
from .hook.versions import KNOWN, flower_version, is_known, require
from .profile import command as profiling
from .safetensors import Contents, Entry, inspect
from .safetensors.outgoing import Outgoing, described
from .sizes import shown
from .terminal import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 with the reason on standard error, or 2 if it was not understood.

    That of ``profile`` is the program's own, or 3.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of characters that its encoding lacks
    options = make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()  # a closed pipe shows here, not when the interpreter ends
        return status
    except BrokenPipeError:  # whoever read it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted")
    except KeyError as error:
        return _fail(str(error.args[0]))
    except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        return _fail(str(error))


def _fail(reason: str) -> int:
    print(f"flatrecord: {printable(reason)}", file=sys.stderr)
    return 1


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="flatrecord", description="Models at no extra memory: their files, their profile, and Flower.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    formats = (
        "Formats go by the suffix: .safetensors (or a model.safetensors.index.json, for a checkpoint in several files), "
        ".npz, and .pt, .pth, .bin or .ckpt for torch, which is loaded with weights_only."
    )
    show = commands.add_parser("inspect", help="say what a file holds", description=f"Say what a file holds. {formats}")
    show.add_argument("file", metavar="FILE")
    show.add_argument("--json", action="store_true", help="for programs: one JSON object")
    _add_entry(show)
    show.set_defaults(run=_inspect)
    change = commands.add_parser(
        "convert",
        help="write what a file holds in another format",
        description=f"Write what a file holds in another format, an array at a time. {formats}",
    )
    change.add_argument("source", metavar="SOURCE")
    change.add_argument("target", metavar="TARGET")
    change.add_argument("-f", "--force", action="store_true", help="replace TARGET if it is there")
    _add_entry(change)
    change.set_defaults(run=_convert)
    profile = commands.add_parser(
        "profile", help="run a program and say how many models it holds at its peak, and where", description=profiling.DESCRIPTION
    )
    profiling.add_arguments(profile)
    profile.set_defaults(run=profiling.run)
    flower = commands.add_parser(
        "flower",
        help="let all Flower processes of this environment use flatrecord",
        description="Let every Flower process of this environment send and receive with flatrecord's records, without a "
        "changed line in the app. FLATRECORD_FLOWER=0 in the environment of a process keeps it out of that process.",
    )
    actions = flower.add_subparsers(required=True, metavar="ACTION")
    for run, summary in (
        (_flower_enable, "write two small files to site-packages"),
        (_flower_disable, "remove them"),
        (_flower_status, "say whether they are there"),
    ):
        actions.add_parser(run.__name__.removeprefix("_flower_"), help=summary, description=summary).set_defaults(run=run)
    return parser


def _add_entry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entry", metavar="KEY", help="of a torch checkpoint, which of its dicts is the state_dict")


# ---------------------------------------------------------------------------------------- inspect


def _inspect(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        contents = _contents(options.file, options.entry, stack)
        (_print_json if options.json else _print_table)(contents)
    return 0


def _contents(path: str, entry: str | None, stack: ExitStack) -> Contents:
    if kind_of(path) == "safetensors" and entry is None:
        return inspect(path)
    checkpoint = opened(path, stack, entry)
    entries = {}
    for name, value in checkpoint.values.items():
        dtype, shape = described(value)
        entries[name] = Entry(str(dtype), shape, "numpy.ndarray", Outgoing(name, value).nbytes, os.path.abspath(path), None)
    return Contents(entries, {})


def _print_json(contents: Contents) -> None:
    entries = [{"name": name, **asdict(entry)} for name, entry in contents.entries.items()]
    print(json.dumps({"entries": entries, "metadata": contents.metadata, "nbytes": contents.nbytes}, indent=1))


def _print_table(contents: Contents) -> None:
    rows = [("name", "dtype", "shape", "bytes")]
    for name, entry in contents.entries.items():
        kind = entry.dtype if entry.stype == "numpy.ndarray" else f"{entry.dtype} ({entry.stype})"
        rows.append((printable(name), printable(kind), "×".join(map(str, entry.shape)) or "scalar", f"{entry.nbytes:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, dtype, shape, nbytes in rows:
        print(f"{name:<{widths[0]}}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  {nbytes:>{widths[3]}}")
    for key, value in contents.metadata.items():
        print(f"metadata {printable(key)}: {printable(value)}")
    count = len(contents.entries)
    print(f"{count} {'entry' if count == 1 else 'entries'}, {_size(contents.nbytes)}")
    dtypes: Counter[str] = Counter()
    for entry in contents.entries.values():
        dtypes[entry.dtype] += entry.nbytes
    if len(dtypes) > 1:
        print(", ".join(f"{printable(dtype)}: {_size(nbytes)}" for dtype, nbytes in dtypes.most_common()))


def _size(nbytes: int) -> str:
    return f"{nbytes} bytes" if nbytes < 1024 else f"{nbytes:,} bytes ({shown(nbytes)})"


# ---------------------------------------------------------------------------------------- convert


def _convert(options: argparse.Namespace) -> int:
    kind_of(options.target)
    if os.path.exists(options.target) and not options.force:
        raise ValueError(f"{options.target} is there already: --force replaces it")
    with _bar(os.path.basename(options.target)) as (begin, progress):
        count = convert(options.source, options.target, entry=options.entry, begin=begin, progress=progress)
    entries = "entry" if count == 1 else "entries"
    print(f"{printable(options.target)}: {count} {entries}, {_size(os.path.getsize(options.target))}")
    return 0


@contextmanager
def _bar(name: str) -> Iterator[tuple[Progress | None, Progress | None]]:
    """A progress bar, where there is a terminal to see it and rich to draw it."""
    if not sys.stderr.isatty():
        yield None, None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress as Bar, TimeRemainingColumn, TransferSpeedColumn
    except ImportError:
        print("flatrecord: pip install 'flatrecord[cli]' for a progress bar", file=sys.stderr)
        yield None, None
        return
    columns: tuple[Any, ...] = (BarColumn(None), DownloadColumn(True), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar("{task.description}", *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(printable(name).replace("[", "\\["), total=None)
        yield lambda total: bar.update(task, total=total), lambda count: bar.advance(task, count)


# ----------------------------------------------------------------------------------------- flower


def _flower_enable(options: argparse.Namespace) -> int:
    require()
    for path, text in hook.files().items():
        print(f"writes {path} ({len(text)} bytes){': ' + text.strip() if text.count(chr(10)) == 1 else ''}")
    hook.enable()
    print(f"enabled for Flower {flower_version()}: processes that start from now on use flatrecord's records")
    return 0


def _flower_disable(options: argparse.Namespace) -> int:
    removed = hook.disable()
    for path in removed:
        print(f"removed {path}")
    print("disabled: nothing of it is left" if removed else "it was not enabled")
    return 0


def _flower_status(options: argparse.Namespace) -> int:
    release = flower_version()
    print(f"environment: {sys.prefix}")
    known = "" if release is None or is_known(release) else f", not one of {KNOWN}: it is left as it is"
    print(f"Flower: {release or 'not installed'}{known}")
    print(f"flatrecord flower: {'enabled' if hook.is_enabled() else 'disabled'}")
    for path in hook.files():
        if path.exists():
            print(f"  {path}")
    return 0
