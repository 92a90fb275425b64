"""The README and the pages of docs/: their blocks, run as a reader would run them from top to bottom.

What a block's first line says of its language says what is done with it:

========  ==================================================================================
python    run, in one namespace a page; what it prints is what the comments after ``print`` say.
          One that begins with ``# NAME.py`` is that file, written to the page's folder
diff      a change to such a file, which has to fit
console   each command after ``$`` is run there, and prints what stands below it
sh        commands that change the machine or take long: they exist, with these options
========  ==================================================================================

In what a console shows, ``...`` stands for anything. Numbers with a point were measured: others may be 5 % or 0.05 away, and
seconds are not compared.
"""

import argparse
import io
import os
import re
import shlex
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import PIPE, STDOUT, run

from flatrecord.cli import make_parser
from profiling.__main__ import make_parser as make_profiling_parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:make|flatrecord|pip install|python -m profiling)\s[^`]+)`")
FILE = re.compile(r"# (\w+\.py)\n")
PROMISE = re.compile(r"^print\(.*\)\s+# (.*)$", re.MULTILINE)
MEASURED = re.compile(r"(\d+\.\d+)( s\b)?")
MAKE = {"demo": "demo", "profile": "compare"}  # which of python -m profiling gets the ARGS of a target


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    """Pairs of language and text, but for what is Sphinx's."""
    return [found.groups() for found in BLOCK.finditer(page.read_text()) if not found[1].startswith("{")]


def commands(page):
    """What a page says to type, in blocks and within lines."""
    lines = [line for kind, text in blocks(page) if kind == "sh" for line in text.splitlines()]
    typed = [
        line.removeprefix("$ ") for kind, text in blocks(page) if kind == "console" for line in text.splitlines() if line.startswith("$ ")
    ]
    return [*filter(None, lines), *typed, *INLINE.findall(BLOCK.sub("", page.read_text()))]


class Reader:
    """Somebody who does what a page says, in a folder of its own."""

    def __init__(self, page, folder):
        self.page, self.folder, self.namespace = page, folder, {"__name__": "page"}
        (folder / "examples").symlink_to(ROOT / "examples")

    def read(self):
        for number, (kind, text) in enumerate(blocks(self.page), 1):
            if kind != "sh":
                getattr(self, kind)(text, f"{self.page.name}, block {number}")

    def python(self, text, where):
        file = FILE.match(text)
        if file:
            (self.folder / file[1]).write_text(text)
            return
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(text, where, "exec"), self.namespace)
        assert out.getvalue().splitlines() == PROMISE.findall(text), where

    def diff(self, text, where):
        _, named, *lines = text.splitlines()
        path = self.folder / named.removeprefix("+++ ")
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] in "- ")
        after = "".join(f"{line[1:]}\n" for line in lines if line[0] in "+ ")
        found = f"\n{path.read_text()}"
        assert found.count(f"\n{before}") == 1, f"{where} does not fit"
        path.write_text(found.replace(f"\n{before}", f"\n{after}")[1:])

    def console(self, text, where):
        for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            program, *words = shlex.split(found[1], comments=True)
            # Not by their names, of which others may be found first.
            command = {"python": [sys.executable], "flatrecord": [sys.executable, "-m", "flatrecord"]}[program]
            environment = {**os.environ, "COLUMNS": "88", "PYTHONPATH": str(ROOT) if "profiling" in words else ""}
            done = run([*command, *words], cwd=self.folder, env=environment, text=True, timeout=300, stdout=PIPE, stderr=STDOUT)
            shown, printed = found[2], done.stdout
            if "--help" in words:  # which each release of Python wraps in its own way
                shown, printed = (" ".join(text.split()) + "\n" for text in (shown, printed))
            assert agree(shown, printed), f"{where}: {found[1]} printed\n{done.stdout}\nwhere the page shows\n{found[2]}"


def agree(shown, printed):
    """Whether a program has printed what a page shows."""
    lines, measured = [], []
    for line in shown.splitlines():
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
            continue
        words = [_pattern(word) for word in MEASURED.sub(lambda number: "\1" if number[2] is None else "\2", line).split()]
        measured += [float(number) for number, seconds in MEASURED.findall(line) if not seconds]
        lines.append(r"\s*" + r"\s+".join(words) + r"\s*\n" if words else r"\s*\n")
    found = re.fullmatch("".join(lines), printed)
    return found is not None and all(
        abs(float(new) - old) <= max(0.05 * old, 0.05) for new, old in zip(found.groups(), measured, strict=True)
    )


def _pattern(word):
    """What a word of a page matches, in which a figure stands as \\1, or as \\2 if it is seconds."""
    pattern = re.sub(r"─+", "─+", re.escape(word)).replace(r"\.\.\.", ".*?")
    return pattern.replace("\1", r"(\d+\.\d+)").replace("\2", r"\d+\.\d+\s+s")


def check(command):
    """Raise an AssertionError if there is no such command, or it has no such options."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)  # a variable of the environment
    match words:
        case ["flatrecord", name]:
            assert name.startswith("-") or name in _commands(make_parser()), command
        case ["flatrecord", *arguments]:
            _parse(make_parser(), arguments, command)
        case ["python", "-m", "profiling", *arguments]:
            _parse(make_profiling_parser(), arguments, command)
        case ["make", target, *rest]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
            for setting in rest:
                name, _, arguments = setting.partition("=")
                assert name == "ARGS", command
                _parse(make_profiling_parser(), [MAKE[target], *shlex.split(arguments)], command)
        case ["pip", "install", what, *_] if what.startswith("flatrecord["):
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert set(what.removeprefix("flatrecord[").rstrip("]").split(",")) <= extras.keys(), command
        case ["pip", "install", what]:
            assert what == "dist/*.whl", command
        case ["python", *_]:
            pass  # is run
        case _:
            raise AssertionError(f"what is {command}?")


def _commands(parser):
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return action.choices


def _parse(parser, arguments, command):
    complaint = io.StringIO()
    with redirect_stderr(complaint), redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(arguments)
            status = 0
        except SystemExit as end:
            status = end.code
    assert status in (0, None), f"{command}: {complaint.getvalue()}"  # 0 is of --help
