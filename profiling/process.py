"""A case in a fresh process: its memory over time, its peak, and how far it has come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

from flatrecord.profile.resident import status

ROOT = Path(__file__).parent.parent
PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_EVERY = 0.01  # seconds
# For cases in which memory is counted. Without it, glibc keeps what is freed in pieces of 1 to 32 MiB, and that would count, too.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


def available() -> int:
    """Bytes that can be allocated on this machine, or in this container, without swapping."""
    with open("/proc/meminfo") as file:
        found = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return found
    return found if limit == "max" else min(found, int(limit) - used)


class Child:
    """What a case in the child process says to its parent: one JSON object a line; a quiet one, nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, **message: object) -> None:
        if not self.quiet:
            print(json.dumps({"time": time.monotonic(), **message}), flush=True)

    def phase(self, name: str) -> None:
        """A new phase begins."""
        self.say(phase=name, resident=status("VmRSS"))

    def progress(self, done: int, total: int) -> None:
        """So many bytes of the phase are done."""
        self.say(done=done, total=total)

    def result(self, **values: object) -> None:
        """What the case found."""
        self.say(result=values)


@dataclass
class Run:
    """What was seen of a case. Times are seconds since it began, memory is in bytes."""

    case: str
    began: float = 0.0
    times: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    phases: list[tuple[str, float]] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)  # resident when each phase began
    result: dict[str, Any] = field(default_factory=dict)


Watch = Callable[[Run, dict[str, Any]], None]


def run(
    case: str,
    *arguments: object,
    watch: Watch = lambda run, message: None,
    environment: dict[str, str] | None = None,
) -> Run:
    """Run ``python -m profiling.cases CASE ARGUMENTS`` in a fresh process and sample its memory.

    `watch` is called with each message of the child, and with an empty one after each sample.
    `environment` is added to that of this process.

    Raises
    ------
    RuntimeError
        If the process fails; the message holds what it wrote to standard error.
    """
    seen = Run(case, time.monotonic())
    command = [sys.executable, "-m", "profiling.cases", case, *map(str, arguments)]
    errors: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        output, complaints = process.stdout, process.stderr
        readers = [
            Thread(target=_listen, args=(output, seen, watch)),
            Thread(target=lambda: errors.append(complaints.read())),
        ]
        try:
            for reader in readers:
                reader.start()
            with open(f"/proc/{process.pid}/statm") as statm:
                while process.poll() is None:
                    _sample(statm, seen)
                    watch(seen, {})
                    time.sleep(SAMPLE_EVERY)
        finally:
            process.kill()
            for reader in readers:
                reader.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{errors[0]}")
    return seen


def _sample(statm: TextIO, seen: Run) -> None:
    statm.seek(0)
    try:
        fields = statm.read().split()
    except ProcessLookupError:
        return
    if len(fields) > 1 and fields[1] != "0":
        seen.times.append(time.monotonic() - seen.began)
        seen.resident.append(int(fields[1]) * PAGE)


def _listen(output: Iterable[str], seen: Run, watch: Watch) -> None:
    for line in output:
        message = json.loads(line)
        if "phase" in message:
            seen.phases.append((message["phase"], message["time"] - seen.began))
            seen.marks.append(message["resident"])
        seen.result.update(message.get("result", {}))
        watch(seen, message)
