"""A real flwr-clientapp at size, stock beside ours: what one round with a model kept alive takes."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .models import GIB
from .process import SAMPLE_EVERY, available
from .tables import table

if TYPE_CHECKING:
    from .deployment import Environment
    from .standin import Model, Object, Seen, StandIn

MIB = 1 << 20
RECORDS = {"stock": "flwr", "flat": "flatrecord"}  # the run config's word, and the table's
NEEDED, SPARE = 5, GIB  # times the model that stock takes, and what is there beside it
SMALL, COUNTED = MIB, 256 * MIB  # sizes of the models that show what the interpreter takes, and what is counted
PATIENCE, SLOWEST = 300, 4 * MIB  # a process has so many seconds, and one more for so many bytes of the model
AT_MOST, FASTER = 1.10, 3  # what ours must keep to: peak over model, and stock's seconds over ours for the reply
AT_SIZE = GIB  # where that is asked for: some chunks are always under way, which is much of a small model

PEAKS = {  # step -> what has been done by then
    "received": "message received",
    "taken out": "model taken out",
    "trained": "trained",
    "reply ready": "reply ready to be pushed",
    "pushed": "pushed: the whole round",
}
SECONDS = {  # what -> from step, to step
    "receive the message, load the app": ("asked", "received"),
    "take the model out": ("received", "taken out"),
    "train": ("taken out", "trained"),
    "prepare the reply": ("trained", "reply ready"),
    "push": ("reply ready", "pushed"),
}
COUNTS = {  # when -> from step, to step
    "until the model was out": ("asked", "taken out"),
    "to prepare the reply": ("trained", "reply ready"),
    "to push it": ("reply ready", "pushed"),
}
UNTIL = {"": "before it asked for its message", "asked": "while it received", "pulled": "before its reply was ready"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m profiling flower``."""
    parser.add_argument("--mib", type=int, default=2048, help="size of the model in MiB (default: %(default)s)")
    parser.add_argument("--arrays", type=int, default=64, help="arrays of the first model; the second is one array (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(default: %(default)s)")
    parser.add_argument("--passes", type=int, default=2, help="times that each library has its turn (default: %(default)s)")
    parser.add_argument("--unchanged", action="store_true", help="the app is the one for stock Flower in both: what enabling alone does")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="how much later each answer comes, as from far away (default: none)")
    parser.add_argument("--limit-gib", type=float, default=0.0, help="kill a process that takes more memory; stock may, ours must not")


@dataclass
class Outcome:
    """What became of a process.

    Attributes
    ----------
    seen : dict of str to Seen
        What was seen at each step that it reached.
    peak : int
        Its highest peak of all, in bytes.
    failure : str
        Why it did not complete the round; empty if it did.
    log : str
        What it wrote.
    equal : bool
        Whether it sent what it had to, bit for bit.
    """

    seen: dict[str, Seen] = field(default_factory=dict)
    peak: int = 0
    failure: str = ""
    log: str = ""
    equal: bool = False


@dataclass
class Task:
    """A model's message, and the id of the ArrayRecord that must come back."""

    nbytes: int
    message: Object
    expected: str


@dataclass
class Case:
    """One library with one model.

    Attributes
    ----------
    records : str
        ``stock`` or ``flat``.
    arrays : int
        Number of arrays.
    tasks : dict of str to Task
        Those with the models that are ``measured``, ``small`` to show what the interpreter takes, and ``counted``.
    measured : list of Outcome
        The round itself, once a pass: the fastest time and the highest peak count.
    small, counted : Outcome or None
        The round that shows what the interpreter takes, and the one in which hashing and copying were counted.
    """

    records: str
    arrays: int
    tasks: dict[str, Task]
    measured: list[Outcome] = field(default_factory=list)
    small: Outcome | None = None
    counted: Outcome | None = None

    @property
    def name(self) -> str:
        """What it is called in the table and in sentences."""
        return f"{RECORDS[self.records]}, {_named(self.arrays)}"

    @property
    def failure(self) -> str:
        """Why a round was not completed; empty if all were."""
        return next((outcome.failure for outcome in self.measured if outcome.failure), "")

    @property
    def equal(self) -> bool:
        """Whether all that was sent was what it had to be, bit for bit."""
        return all(outcome.equal for outcome in self.measured)

    @property
    def whole_peak(self) -> int:
        """The highest peak in bytes, with the interpreter's, whether the round was completed or not."""
        return max(outcome.peak for outcome in self.measured)

    def peak(self, step: str) -> float | None:
        """The peak up to a step over the model, without the interpreter's; None if a round was not completed."""
        if self.failure or self.small is None:
            return None
        highest = max(outcome.seen[step].peak for outcome in self.measured)
        return (highest - self.small.seen[step].peak) / self.tasks["measured"].nbytes

    def seconds(self, what: str) -> float | None:
        """How long one part of the round took; None if a round was not completed."""
        if self.failure:
            return None
        start, stop = SECONDS[what]
        return min(outcome.seen[stop].time - outcome.seen[start].time for outcome in self.measured)

    def count(self, what: str, start: str, stop: str) -> float | None:
        """What was ``copied`` or ``hashed`` between two steps, over the model; None if it could not be counted."""
        if self.counted is None:
            return None
        seen = self.counted.seen
        counted: int = getattr(seen[stop], what) - getattr(seen[start], what)
        return counted / self.tasks["counted"].nbytes


def main(options: argparse.Namespace) -> int:
    """Run all cases and print the table; 1 if ours took too much, was too slow, or a bit was lost."""
    console = Console()
    try:
        from .standin import Model
    except ImportError as error:
        console.print(f"[red]{error}: pip install 'flatrecord[dev]', or make profile[/]")
        return 2
    try:
        models = {arrays: Model(arrays, options.mib * MIB, options.dtype) for arrays in dict.fromkeys((options.arrays, 1))}
    except (ValueError, ZeroDivisionError) as error:
        console.print(f"[red]--mib {options.mib} --arrays {options.arrays}: {error}[/]")
        return 2
    if options.passes < 1 or options.limit_gib < 0 or options.latency_ms < 0:
        console.print("[red]--passes must be at least 1, --limit-gib and --latency-ms at least 0[/]")
        return 2
    limit = round(options.limit_gib * GIB)
    needed, free = min(NEEDED * options.mib * MIB, limit or float("inf")) + SPARE, available()
    if free < needed:
        console.print(f"[red]{free / GIB:.1f} GiB are free, but stock needs {needed / GIB:.1f}: choose a smaller --mib[/]")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="flatrecord-profiling-"))
    try:
        cases = _measured(console, models, options, limit, folder)
    except RuntimeError as error:
        console.print(str(error), style="red", soft_wrap=True, markup=False)  # a log may hold brackets
        return 1
    finally:
        shutil.rmtree(folder)
    for line in _said(options, limit):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(_table(cases))
    return _judged(console, cases, limit, options.unchanged)


# ------------------------------------------------------------------------------------------ the processes


def _measured(console: Console, models: dict[int, Model], options: argparse.Namespace, limit: int, folder: Path) -> list[Case]:
    """Every case, each round in a fresh process; the two libraries take turns.

    Raises
    ------
    RuntimeError
        If a process failed that was not meant to.
    """
    from .deployment import Environment
    from .standin import Model

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    cases = []
    with Progress(*columns, console=console, transient=True) as progress:
        bar = Bar(progress)
        environments = {}
        for records in RECORDS:
            bar.begin(f"an environment with {RECORDS[records]}", 1)
            environments[records] = Environment(folder / records, flat=records == "flat")
        counter = _counter(environments["stock"], folder)
        if counter is None:
            console.print("[yellow]What is hashed and copied cannot be counted here: no C compiler, or another libcrypto.[/]")
        for arrays, model in models.items():
            tasks = {}
            for name, nbytes in ("small", SMALL), ("counted", COUNTED), ("measured", model.nbytes):
                one_row = model.nbytes // model.shape[0]
                of_size = Model(arrays, min(model.nbytes, max(nbytes, one_row)), options.dtype)
                tasks[name] = _task(of_size, bar)
            pair = [Case(records, arrays, tasks) for records in RECORDS]

            def once(case: Case, name: str, limit: int = 0, counter: Path | None = None) -> Outcome:
                task = case.tasks[name]
                bar.begin(f"{case.name}, {task.nbytes / MIB:g} MiB", 2 * task.nbytes)
                place, environment = Path(tempfile.mkdtemp(dir=folder)), environments[case.records]
                seconds, app = options.latency_ms / 1000, "stock" if options.unchanged else case.records
                outcome = run(environment, app, task, place, seconds, limit=limit, counter=counter, watch=bar.watch)
                if outcome.failure and not limit:
                    raise RuntimeError(f"{case.name}: {outcome.failure}\n{outcome.log}")
                return outcome

            for case in pair:
                case.small = once(case, "small")
                if counter is not None:
                    case.counted = once(case, "counted", counter=counter)
            for _ in range(options.passes):
                for case in pair:
                    case.measured.append(once(case, "measured", limit=limit))
            cases += pair
    return cases


def _named(arrays: int) -> str:
    return "1 array" if arrays == 1 else f"{arrays} arrays"


def _task(model: Model, bar: Bar) -> Task:
    from .standin import task

    bar.begin(f"{_named(model.arrays)}: object ids", model.nbytes)
    message = task(model.record(False, bar.at))
    bar.begin(f"{_named(model.arrays)}: object ids once it is trained", model.nbytes)
    return Task(model.nbytes, message, model.record(True, bar.at).object_id)


class Bar:
    """The progress of one thing after the other."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("", total=1)

    def begin(self, title: str, total: int) -> None:
        self.progress.reset(self.task, description=title, total=total)

    def at(self, done: int) -> None:
        self.progress.update(self.task, completed=done)

    def watch(self, standin: StandIn) -> None:
        self.at(standin.pulled + standin.pushed)


def run(
    environment: Environment,
    records: str,
    task: Task,
    folder: Path,
    latency: float = 0.0,
    *,
    limit: int = 0,
    counter: Path | None = None,
    watch: Callable[[StandIn], None] = lambda standin: None,
) -> Outcome:
    """Let a ``flwr-clientapp`` do a task, started as a SuperNode starts it.

    Parameters
    ----------
    environment : Environment
        Where it runs.
    records : str
        ``stock`` or ``flat``: how its app is written.
    task : Task
        What it has to do.
    folder : Path
        For its log and what Flower writes.
    latency : float
        Seconds by which each answer comes later.
    limit : int
        Bytes that may be resident; a process that takes more is killed. 0 for no limit.
    counter : Path, optional
        The library made from ``counts.c``, to be preloaded.
    watch : callable
        Called some 100 times a second.
    """
    from .standin import Seen, StandIn

    variables = {**environment.variables(), "FLWR_HOME": str(folder)}
    counts = folder / "counts"
    counts.write_bytes(bytes(16))
    if counter is not None:
        variables |= {"LD_PRELOAD": str(counter), "FLATRECORD_COUNTS": str(counts)}
    outcome = Outcome()

    def look() -> Seen:
        outcome.peak = max(outcome.peak, _peak(process.pid))
        return Seen(time.monotonic(), outcome.peak, *struct.unpack("QQ", counts.read_bytes()))

    with StandIn(task.message, task.expected, records, look, latency) as standin, open(folder / "log", "wb") as log:
        command = ["flwr-clientapp", "--runtime-api-address", standin.address, "--token", "standin", "--insecure"]
        command += ["--parent-pid", str(os.getpid())]
        outcome.seen = standin.seen
        process = subprocess.Popen(
            [environment.scripts / command[0], *command[1:]],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended = _awaited(process, task, limit, outcome, lambda: watch(standin))
        finally:
            process.kill()
            process.wait()
    outcome.log = (folder / "log").read_text(errors="replace")
    outcome.equal = standin.equal
    if not standin.complete or process.returncode:
        outcome.failure = f"{ended or _death(process.returncode, outcome.log)} {_when(standin.seen)}"
        outcome.log += "\n".join(standin.errors)
    return outcome


def _peak(pid: int) -> int:
    """VmHWM of a process in bytes; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _awaited(process: subprocess.Popen[bytes], task: Task, limit: int, outcome: Outcome, watch: Callable[[], None]) -> str:
    """Wait for the end of a process; if it has to be ended, say why.

    The limit is kept by this process: a memory cgroup would have to be made in a hierarchy that is somebody else's, and
    RLIMIT_AS and RLIMIT_DATA count what is reserved and never touched. VmHWM forgets nothing between two looks.
    """
    deadline = time.monotonic() + PATIENCE + task.nbytes / SLOWEST
    while process.poll() is None:
        outcome.peak = max(outcome.peak, _peak(process.pid))
        if limit and outcome.peak > limit:
            return "killed at its limit"
        if time.monotonic() > deadline:
            return "killed as it came to no end"
        watch()
        time.sleep(SAMPLE_EVERY)
    return ""


def _death(status: int, log: str) -> str:
    if "MemoryError" in log:
        return "MemoryError"
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _when(seen: dict[str, Seen]) -> str:
    reached = [step for step in UNTIL if step in seen]
    return "while it pushed" if "reply ready" in seen else UNTIL[reached[-1] if reached else ""]


def _counter(environment: Environment, folder: Path) -> Path | None:
    """The library made from ``counts.c``; None if it cannot be made, or does not count what it should."""
    library, counts = folder / "counts.so", folder / "counts"
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source = Path(__file__).with_name("counts.c")
    if subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], capture_output=True, timeout=60).returncode:
        return None
    counts.write_bytes(bytes(16))
    known = f"import hashlib; hashlib.sha256(bytes(bytearray({COUNTED})))"
    environment.run(environment.python, "-c", known, variables={"LD_PRELOAD": str(library), "FLATRECORD_COUNTS": str(counts)})
    copied, hashed = struct.unpack("QQ", counts.read_bytes())
    return library if hashed == COUNTED and COUNTED <= copied < 1.02 * COUNTED else None


# ------------------------------------------------------------------------------------------ the table


def _said(options: argparse.Namespace, limit: int) -> Iterator[str]:
    """What stands above the table."""
    yield (
        f"One round of a real flwr-clientapp, {options.mib / 1024:.3g} GiB of {options.dtype}: the model is received, trained in place, "
        "kept alive, and sent. The other end is a stand-in that makes each chunk when it is asked for and throws away what it has "
        "checked, because SuperLink, SuperNode and ServerApp would hold the model, too."
    )
    yield (
        f"Peaks are VmHWM less that of a round with {SMALL / MIB:g} MiB. Hashed and copied bytes were counted in a round of "
        f"their own with {min(COUNTED / MIB, options.mib):g} MiB: what OpenSSL digests; memcpy and memmove of 4 KiB and more, without "
        "the kernel's copies."
    )
    if options.unchanged:
        yield "The app is the one for stock Flower in both; ours is enabled in its environment."
    if options.latency_ms:
        yield f"Each answer of the other end comes {options.latency_ms:g} ms later, as from far away."
    if limit:
        yield f"A process is killed as soon as its VmHWM, with the interpreter's, is more than {limit / GIB:g} GiB."


def _table(cases: list[Case]) -> Table:
    """A column a case."""
    found = table("", *(f"{RECORDS[case.records]}\n{_named(case.arrays)}" for case in cases))
    found.add_row("[bold]peak so far / model[/]")
    for step, name in PEAKS.items():
        found.add_row(f"  {name}", *(_number(case.peak(step)) for case in cases))
    found.add_row("[bold]seconds[/]")
    for what in SECONDS:
        found.add_row(f"  {what}", *(_number(case.seconds(what)) for case in cases))
    found.add_row("[bold]per byte of the model[/]")
    for what in "hashed", "copied":
        for name, steps in COUNTS.items():
            found.add_row(f"  {what} {name}", *(_number(case.count(what, *steps)) for case in cases))
    exact = ("" if case.failure else "yes" if case.equal else "no" for case in cases)
    found.add_row("[bold]reply is bit-exact[/]", *exact)
    return found


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _judged(console: Console, cases: list[Case], limit: int, unchanged: bool) -> int:
    """Whether ours kept to its bounds; says what was found."""
    status = 0

    def say(met: bool, sentence: str) -> None:
        nonlocal status
        console.print(sentence if met else f"[red]{sentence}[/]", soft_wrap=True)
        status |= not met

    for case in cases:
        at = f"at a peak of {case.whole_peak / GIB:.2f} GiB"
        if case.failure:
            say(case.records == "stock", f"{case.name}: {case.failure}, {at}")
        elif not case.equal:
            say(False, f"{case.name}: the reply is not the trained model")
        elif limit:
            say(True, f"{case.name}: did its round, {at}")
    if unchanged or cases[0].tasks["measured"].nbytes < AT_SIZE:
        return status
    for stock, flat in zip(cases[::2], cases[1::2], strict=True):
        peak, theirs, ours = flat.peak("pushed"), stock.seconds("prepare the reply"), flat.seconds("prepare the reply")
        if peak is not None:
            say(peak <= AT_MOST, f"{flat.name}: took {peak:.2f} times the model; may take {AT_MOST:.2f}")
        if theirs and ours:
            faster = f"{theirs / ours:.1f} times faster than with stock; must be {FASTER}"
            say(theirs >= FASTER * ours, f"{flat.name}: reply ready {faster}")
    return status
