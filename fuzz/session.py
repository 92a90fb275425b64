"""A run of libFuzzer in a process of its own: what it needs, and what came of it."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import atheris

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "fuzzed"
LONGEST = 4096  # bytes of an input
CHUNK = 256  # bytes of Flower's chunks, so that an input can have several
OPTIONS = (f"-max_len={LONGEST}", "-rss_limit_mb=2048", "-malloc_limit_mb=16", "-timeout=30", "-print_final_stats=1")


@dataclass
class Outcome:
    """What a run has done."""

    log: str
    status: int  # of the process; 0 if it has found nothing
    finding: Path | None = None  # the input that is to blame

    def _last(self, pattern: str) -> int:
        found = re.findall(pattern, self.log)
        return int(found[-1]) if found else 0

    @property
    def inputs(self) -> int:
        """int: how many inputs were tried."""
        return self._last(r"stat::number_of_executed_units: +(\d+)")

    @property
    def per_second(self) -> int:
        """int: how many of them in a second."""
        return self._last(r"stat::average_exec_per_sec: +(\d+)")

    @property
    def edges(self) -> int:
        """int: basic blocks of C and branches of Python that were reached."""
        return self._last(r" cov: (\d+)")

    @property
    def features(self) -> int:
        """int: these, told apart by how often an input reaches them, and values that were compared."""
        return self._last(r" ft: (\d+)")

    @property
    def corpus(self) -> int:
        """int: inputs that each reach something new."""
        return self._last(r" corp: (\d+)/")


def run(module: str, log: Path, findings: Path, arguments: Sequence[str | Path], path: Sequence[Path] = ()) -> Outcome:
    """Let libFuzzer work on a target until it is done, or has found something.

    Parameters
    ----------
    module : str
        The target's module, which has `check` and `WORDS`.
    log : Path
        A file for what libFuzzer says.
    findings : Path
        The folder for inputs that are to blame for something.
    arguments : sequence of str or Path
        Options of libFuzzer beside ours, folders of inputs, or an input.
    path : sequence of Path
        More places to import from.
    """
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    # Where there is memory instead of a disk, nothing has to be written through.
    with tempfile.TemporaryDirectory(prefix="flatrecord-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for_fuzzer = {
            "LD_PRELOAD": os.path.join(atheris.path(), "asan_with_fuzzer.so"),
            # CPython keeps what it has allocated until it exits, so leaks are not looked for here.
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=16",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",  # so that each object is a block of its own, and its end is guarded
            "PYTHONPATH": os.pathsep.join(map(str, (BUILD, ROOT, *path))),
            "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(CHUNK),
            "TMPDIR": folder,
        }
        options = [*OPTIONS, f"-artifact_prefix={findings}{os.sep}", *map(str, arguments)]
        with open(log, "wb") as file:
            # By way of a shell, which stays: Linux counts as a process's own peak what the process had that started it, and
            # libFuzzer would stop at once where that is more than it allows.
            command = ["sh", "-c", '"$@"; exit $?', "sh", "env", *(f"{name}={value}" for name, value in for_fuzzer.items())]
            command += [sys.executable, "-m", "fuzz.driver", module, *options]
            status = subprocess.run(command, stdout=file, stderr=file, cwd=ROOT).returncode
    found = sorted(set(findings.iterdir()) - before)
    return Outcome(log.read_text(errors="replace"), status, found[0] if found else None)
