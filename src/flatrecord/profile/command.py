"""The command ``flatrecord profile``: its options, the process it starts, and what becomes of the result."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .. import sizes
from ..terminal import printable
from .extra import missing

if TYPE_CHECKING:
    from .notes import Notes
    from .results import Profile

EXCEEDED = 3  # the exit status where the peak was more than --max-ratio
PICTURES = (".png", ".svg", ".pdf")
DESCRIPTION = (
    "Run a Python program under memray and say, in terms of its model: how much memory it took at its peak, which lines held more "
    "than one model then, and since when. The model's size is that of the largest record or state_dict that passes through "
    "flatrecord, torch, safetensors or Flower, or what --model-bytes says. The exit status is the program's own; 3 if --max-ratio is "
    "exceeded."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``flatrecord profile``."""
    parser.add_argument("-m", dest="module", action="store_true", help="the program is a module, as for python -m")
    parser.add_argument("--model-bytes", type=_size, metavar="SIZE", help="size of the model, such as 7.5GiB")
    parser.add_argument("--max-ratio", type=_ratio, metavar="N", help=f"exit with status {EXCEEDED} if the peak is more than N models")
    parser.add_argument("--plot", type=_picture, metavar="FILE", help=f"write a timeline ({', '.join(PICTURES)})")
    parser.add_argument(
        "--html", type=_output, metavar="FILE", help="write memray's flame graph of the peak, one file that needs no network"
    )
    parser.add_argument("--json", type=_output, metavar="FILE", help="write all of it for other programs")
    parser.add_argument("--capture", type=_output, metavar="FILE", help="keep what memray has captured, for its other reporters")
    parser.add_argument(
        "--python-allocators",
        action="store_true",
        help="see each Python object, not only the 1 MiB arenas they lie in: more exact for small models, and slower",
    )
    parser.add_argument("program", metavar="SCRIPT", help="the script, or with -m the module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")


def run(options: argparse.Namespace) -> int:
    """Profile the program, print the report, and write what was asked for; the exit status."""
    for module, wanted in (("memray", True), ("matplotlib", options.plot)):
        if wanted and find_spec(module) is None:
            raise ImportError(f"flatrecord profile needs {missing(module)}")
    if not options.module and not Path(options.program).is_file():
        raise FileNotFoundError(f"there is no script {options.program} (a module is named with -m)")
    with TemporaryDirectory(prefix="flatrecord-profile-") as folder:
        capture = options.capture or Path(folder) / "capture.bin"
        capture.unlink(missing_ok=True)  # that of an earlier run
        status, notes = _run(options, capture, Path(folder) / "notes")
        if not notes.started:
            return status  # it could not be read, which it has said
        return _told(_profile(options, status, capture, notes), options, capture)


def _run(options: argparse.Namespace, capture: Path, path: Path) -> tuple[int, Notes]:
    """Run the program to its end: its exit status as a shell has it, and what it has noted."""
    from .notes import read
    from .tracked import CACHE, LAUNCH

    path.touch()
    settings = {"module": options.module, "python_allocators": options.python_allocators, "cache": os.environ.get(CACHE)}
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing has it
    command = [sys.executable, *flags, "-c", LAUNCH, str(capture), str(path), json.dumps(settings), options.program]
    with subprocess.Popen([*command, *options.arguments], env={**os.environ, CACHE: "0"}) as process, _signals_are_for(process):
        status = process.wait()
    return status if status >= 0 else 128 - status, read(path)


def _profile(options: argparse.Namespace, status: int, capture: Path, notes: Notes) -> Profile:
    from rich.console import Console

    from . import captures
    from .results import Profile

    with Console(stderr=True).status("reading what memray has captured"):
        captured = captures.read(capture, str(notes.started["own"]))
    title = f"-m {options.program}" if options.module else options.program
    return Profile(printable(title), status, captured, notes, options.model_bytes)


def _told(profile: Profile, options: argparse.Namespace, capture: Path) -> int:
    """Print the report, and then write the files, so that none that fails takes the report along; the exit status."""
    from .report import reported

    _say(reported(profile))
    if options.json:
        options.json.write_text(json.dumps(profile.as_json(), indent=1) + "\n")
        _say(f"JSON: {options.json}\n")
    if options.plot:
        from .timeline import draw

        draw(profile, options.plot)
        _say(f"timeline: {options.plot}\n")
    if options.html:
        _draw_flames(capture, options.html)
        _say(f"flame graph: {options.html}\n")
    if options.capture:
        _say(f"capture: {options.capture}\n")
    if options.max_ratio is None:
        return profile.exit_status
    if profile.ratio is None and not profile.exit_status:
        raise ValueError("--max-ratio: no record or state_dict passed through, so that the model's size is unknown: give --model-bytes")
    if profile.ratio is not None and profile.ratio > options.max_ratio:
        _say(f"\nThe peak is {profile.ratio:.3f} models, more than the {options.max_ratio:g} of --max-ratio.\n")
        return profile.exit_status or EXCEEDED
    return profile.exit_status


def _say(text: str) -> None:
    """Print it. Whoever reads may have read enough, but the files are still wanted, and the status is what it is."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _draw_flames(capture: Path, path: Path) -> None:
    """Have memray draw the flame graph of the peak.

    Raises
    ------
    OSError
        If it cannot, with what it says.
    """
    reporter = [sys.executable, "-m", "memray", "flamegraph", "--no-web", "--force", "-o", str(path), str(capture)]
    done = subprocess.run(reporter, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise OSError(f"--html {path}: memray could not write it: {''.join(last) or f'exit status {done.returncode}'}")


@contextmanager
def _signals_are_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """What should end us ends the program, of which we still report. (Ctrl-C reaches both processes.)

    What we were told to ignore, as ``nohup`` tells of SIGHUP, is ignored: the program has been told so, too.
    """

    def terminate(*_: object) -> None:
        process.terminate()

    handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: terminate, signal.SIGHUP: terminate}
    heard = [number for number in handlers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handlers[number]) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _size(text: str) -> int:
    try:
        return sizes.parsed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _ratio(text: str) -> float:
    ratio = float(text)
    if not 0 < ratio < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return ratio


def _output(text: str) -> Path:
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder")
    return path


def _picture(text: str) -> Path:
    path = _output(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"must end in one of {', '.join(PICTURES)}, got {text}")
    return path
