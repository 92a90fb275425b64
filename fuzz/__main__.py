"""``python -m fuzz [TARGET ...] [--seconds N]``: fuzz the targets one after the other, and say what was found."""

import argparse
import shutil
import sys
import tempfile
from hashlib import sha1
from importlib import import_module
from pathlib import Path

from . import TARGETS
from .session import ROOT, Outcome, run

WORK = ROOT / "build" / "fuzzing"
CORPUS = ROOT / "fuzz" / "corpus"
TAIL = 40  # lines of the log that are shown of a finding


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz what reads bytes from anybody.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=1200, metavar="N", help="how long, for each target (default: 1200)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="only try this input, as one that was found")
    parser.add_argument("--keep", action="store_true", help="no fuzzing: choose a new fuzz/corpus of what there is and of the seeds")
    given = parser.parse_args()
    targets = given.targets or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}")
    WORK.mkdir(parents=True, exist_ok=True)
    if given.keep:
        for target in targets:
            keep(target)
        return 0
    inputs = [given.input.resolve()] if given.input else None
    outcomes = {target: fuzzed(target, inputs, given.seconds) for target in targets}
    print(table(outcomes))
    return int(any(outcome.status for outcome in outcomes.values()))


def table(outcomes: dict[str, Outcome]) -> str:
    """What was tried and found, for people."""
    rows = [f"\n{'target':<12} {'inputs':>12} {'a second':>9} {'edges':>7} {'features':>9} {'corpus':>7} {'findings':>9}"]
    for target, found in outcomes.items():
        numbers = f"{found.inputs:>12,} {found.per_second:>9,} {found.edges:>7,} {found.features:>9,} {found.corpus:>7,}"
        rows.append(f"{target:<12} {numbers} {found.status != 0:>9}")
    inputs, findings = (sum(column) for column in zip(*((found.inputs, found.status != 0) for found in outcomes.values()), strict=True))
    return "\n".join([*rows, f"{'all':<12} {inputs:>12,} {'':>9} {'':>7} {'':>9} {'':>7} {findings:>9}"])


def fuzzed(target: str, inputs: list[Path] | None, seconds: int) -> Outcome:
    """Fuzz a target, or only try some inputs, and show what was found."""
    own = WORK / target
    own.mkdir(exist_ok=True)
    folders: list[str | Path] = [f"-max_total_time={seconds}", "-use_value_profile=1", own, CORPUS / target]
    print(f"{target}: {'one input' if inputs else f'{seconds} s'}, log in build/fuzzing/{target}.log", flush=True)
    log = WORK / f"{target}.log"
    outcome = run(f"fuzz.{target}", log, WORK / "findings" / target, inputs or folders)
    if outcome.status:
        print(*outcome.log.splitlines()[-TAIL:], sep="\n")
        if outcome.finding:
            print(f"\n{target}: to try it again: python -m fuzz {target} --input {outcome.finding.relative_to(ROOT)}", flush=True)
    return outcome


def keep(target: str) -> None:
    """Choose the target's corpus anew: the fewest inputs that reach all that any of them reaches, the seeds included."""
    (WORK / target).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        seeds, chosen = Path(folder) / "seeds", Path(folder) / "chosen"
        seeds.mkdir()
        chosen.mkdir()
        for i, seed in enumerate(import_module(f"fuzz.{target}").seeds()):
            (seeds / str(i)).write_bytes(seed)
        sources = [seeds, WORK / target, *([CORPUS / target] if (CORPUS / target).exists() else [])]
        # Without counters: an input that goes round a loop once more is nothing new here.
        arguments: list[str | Path] = ["-set_cover_merge=1", "-use_counters=0", chosen, *sources]
        outcome = run(f"fuzz.{target}", WORK / f"{target}-keep.log", WORK / "findings" / target, arguments)
        if outcome.status:
            sys.exit(f"{outcome.log}\n{target}: the corpus stays as it is")
        shutil.rmtree(CORPUS / target, ignore_errors=True)
        (CORPUS / target).mkdir(parents=True)
        for path in chosen.iterdir():
            (CORPUS / target / sha1(path.read_bytes()).hexdigest()[:12]).write_bytes(path.read_bytes())
    print(f"{target}: {len(list((CORPUS / target).iterdir()))} inputs in fuzz/corpus/{target}")


if __name__ == "__main__":
    sys.exit(main())
