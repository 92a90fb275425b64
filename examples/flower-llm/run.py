"""Run the app on a SuperLink and two SuperNodes of its own, with stock records and with flat ones: ``python run.py``."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

APP = Path(__file__).parent
sys.path.insert(0, str(APP.parent.parent))  # for profiling

try:
    import flwr  # noqa: F401 (whether it is there)
    import torch  # noqa: F401 (whether it is there)
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from profiling.deployment import Deployment, Environment, Run
except ImportError as error:
    sys.exit(f"{error}: pip install 'flatrecord[cli,torch]' 'flwr==1.41.0'")

NODES = 2
MIB = 1 << 20
# What a process of the app takes for a model of next to nothing.
BARE = """
import flwr.supernode.cli, flwr.superlink.cli
from flower_llm import client_app, server_app
from flower_llm.model import Transformer, text_of, train
train(Transformer(64, 1), text_of(0, 2), 1, 1, 0.0, 0)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS:")))
"""


def main() -> int:
    """Run it and print the tables; 1 if a process failed or the loss did not fall."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".")
    parser.add_argument("--records", choices=("stock", "flat", "both"), default="both")
    for name, text in {
        "width": "of the model, a multiple of 64",
        "layers": "of the model",
        "rounds": "of FedAvg",
        "steps": "of training, in each round on each node",
        "batch": "texts of 64 characters in each step",
    }.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{text} (see pyproject.toml)")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for each run (default: %(default)g)")
    options = parser.parse_args()
    config = {key: getattr(options, key) for key in ("width", "layers", "rounds", "steps", "batch") if getattr(options, key)}
    console = Console()
    found: dict[str, tuple[Run, int]] = {}
    try:
        for records in ("stock", "flat") if options.records == "both" else (options.records,):
            found[records] = run(records, config, options.timeout, console)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    losses = {records: losses_of(run) for records, (run, _) in found.items()}
    console.print(loss_table(losses))
    console.print(memory_table(found))
    if len(losses) == 2:
        console.print(f"The same losses, to the last bit: {'yes' if losses['stock'] == losses['flat'] else 'no'}")
    fell = all(loss["evaluated"][-1] < loss["evaluated"][0] for loss in losses.values())
    if not fell:
        console.print("[red]The loss did not fall.[/]")
    return 0 if fell else 1


def run(records: str, config: dict[str, int], timeout: float, console: Console) -> tuple[Run, int]:
    """Run the app with one kind of records; also what a process of it takes for a model of next to nothing, in bytes."""
    with tempfile.TemporaryDirectory() as folder, console.status(f"{records}: starting Flower") as status:
        threads = str(max(1, (os.cpu_count() or 1) // NODES))  # the nodes share this machine
        variables = {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(APP)}
        environment = Environment(Path(folder, "environment"), flat=records == "flat", quick=True, variables=variables)
        bare = int(environment.run(environment.python, "-c", BARE)) << 10

        def watch(run: Run) -> None:
            rounds = re.findall(r"\[ROUND (\d+)/(\d+)\]", run.output)
            evaluated = re.findall(r"'loss': ([\d.]+)", run.output)
            if rounds:
                done = f", loss {float(evaluated[-1]):.3f}" if evaluated else ""
                status.update(f"{records}: round {rounds[-1][0]} of {rounds[-1][1]}{done}")

        with Deployment(environment, [environment] * NODES, folder=Path(folder, "flower")) as deployment:
            return deployment.run(APP, {**config, "records": records}, timeout=timeout, watch=watch), bare


def losses_of(run: Run) -> dict[str, list]:
    """What the ServerApp printed."""
    found = re.search(r"^losses: (.*)$", run.output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the ServerApp printed no losses:\n{run.output}")
    return json.loads(found[1])


def model_of(run: Run) -> float:
    """The size of the model in MiB, as the ServerApp printed it."""
    return float(re.search(r"^ServerApp: .*model ([\d.]+) MiB", run.output, re.MULTILINE)[1])


def loss_table(losses: dict[str, dict]) -> Table:
    """Losses by round: on text that no node has, and of each node while it trained."""
    table = Table(title="Loss (nats a character)", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("round")
    for records in losses:
        table.add_column(records, justify="right")
        for node in range(NODES):
            table.add_column(f"node {node}", justify="right", style="dim")
    for i in range(len(next(iter(losses.values()))["evaluated"])):
        row = [str(i)]
        for loss in losses.values():
            row.append(f"{loss['evaluated'][i]:.4f}")
            row += [f"{value:.4f}" for value in loss["trained"][i - 1]] if i else [""] * NODES
        table.add_row(*row)
    return table


def memory_table(found: dict[str, tuple[Run, int]]) -> Table:
    """Peak of each process, less what it took before there was a model."""
    size = model_of(next(iter(found.values()))[0])
    title = f"Peak memory in MiB, less what the process took without a model; / model ({size:.1f} MiB)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("process")
    columns = []
    for records, (run, bare) in found.items():
        table.add_column(records, justify="right")
        table.add_column("/ model", justify="right")
        columns.append(peaks(run, bare))
    for process in columns[0]:
        cells = []
        for column in columns:
            peak = column[process] / MIB
            cells += [f"{peak:.0f}", f"{peak / size:.2f}"]
        table.add_row(process, *cells)
    return table


def peaks(run: Run, bare: int) -> dict[str, int]:
    """The highest peak of each kind of process on each node, less what it took before, in bytes."""
    found: dict[str, int] = {}
    for process in run.processes:
        kind = process.kind.removeprefix("flower-").removeprefix("flwr-")
        if kind != "superexec":
            name = kind if process.node == "superlink" else f"{kind} of node {process.node[-1]}"
            found[name] = max(found.get(name, 0), process.peak - (bare if process.began is None else process.began))
    return found


if __name__ == "__main__":
    sys.exit(main())
