"""Real Flower on loopback: a SuperLink and SuperNodes, each in an environment of its own, stock or flat."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import site
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import IO, Self

HOST = "127.0.0.1"
# Below the ports that the kernel gives to whoever connects: there, a client that waits for a server that is not yet up may
# be given the server's own port, and be connected with itself.
PORTS = range(20000, 32000)
SAMPLE_EVERY = 0.02  # seconds
POLL_EVERY = 0.05  # seconds: what a quick environment makes of Flower's 3
ENDS_WITHIN = 10  # seconds from the end of a run to the end of its apps' processes; Flower itself kills them after 5
APPS = ("flwr-serverapp", "flwr-clientapp")
KINDS = ("flower-superlink", "flower-supernode", "flower-superexec", *APPS)
# Every process of a deployment inherits this variable, by which it is found, whoever started it: Flower puts some into
# sessions of their own, and those whose parent has died belong to init.
MARK = "FLATRECORD_DEPLOYMENT"

CONSOLE_SCRIPT = """#!/bin/sh
'''exec' {python} "$0" "$@"
' '''
import sys
from {module} import {function}
sys.exit({function}())
"""

# Flower waits 3 s where it asks for a message or a reply, and offers no setting.
QUICK = """import sys, time

WAITING = {{"flwr.supernode.start_client_internal", "flwr.superlink.grid.http_grid"}}

def sleep(seconds, _sleep=time.sleep):
    _sleep(min(seconds, {poll}) if sys._getframe(1).f_globals.get("__name__") in WAITING else seconds)

time.sleep = sleep
"""


class Environment:
    """A Python environment that has all the packages of this one, and is ready in some milliseconds.

    Flower starts its processes by name, from PATH, so they run in the environment of the process that starts them.

    Parameters
    ----------
    folder : Path
        Where to put it; made if need be.
    flat : bool
        Whether to run ``flatrecord flower enable`` in it.
    quick : bool
        Whether Flower's processes poll 20 times a second instead of once in 3 s.
    variables : mapping of str to str, optional
        Environment variables of the processes that run in it.

    Attributes
    ----------
    python : Path
        The interpreter.
    scripts : Path
        The folder of the commands of flwr and flatrecord.
    packages : Path
        The folder of the packages (purelib), empty but for what is written here.
    """

    def __init__(self, folder: Path, *, flat: bool = False, quick: bool = False, variables: Mapping[str, str] | None = None) -> None:
        venv.EnvBuilder(symlinks=True).create(folder)
        self.flat, self.quick = flat, quick
        self.scripts = Path(folder).absolute() / "bin"
        self.python = self.scripts / "python"
        self.packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(self.scripts.parent)}))
        self._variables = dict(variables or {})
        lines = (f"import site; site.addsitedir({parent!r})\n" for parent in site.getsitepackages())
        (self.packages / "parent.pth").write_text("".join(lines))
        for name in ("flwr", "flatrecord"):
            for script in distribution(name).entry_points.select(group="console_scripts"):
                path = self.scripts / script.name
                quoted = shlex.quote(str(self.python))
                path.write_text(CONSOLE_SCRIPT.format(python=quoted, module=script.module, function=script.attr))
                path.chmod(0o755)
        if quick:
            (self.packages / "quick_flower.py").write_text(QUICK.format(poll=POLL_EVERY))
            (self.packages / "quick_flower.pth").write_text("import quick_flower\n")
        if flat:
            self.run(self.python, "-m", "flatrecord", "flower", "enable")

    def variables(self) -> dict[str, str]:
        """The environment variables of a process that runs here."""
        variables = {
            **os.environ,
            "PATH": f"{self.scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "VIRTUAL_ENV": str(self.scripts.parent),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLATRECORD_FLOWER": str(int(self.flat)),  # stock is stock even where the parent is flat
            "PYTHONUNBUFFERED": "1",  # so that what an app prints is in the log when it is killed
            **self._variables,
        }
        variables.pop("PYTHONHOME", None)
        if self.quick:
            variables.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", str(POLL_EVERY))
        return variables

    def run(self, *command: str | Path, timeout: float = 60, variables: Mapping[str, str] | None = None) -> str:
        """Run a command here, with some more environment variables, and return what it wrote to standard output.

        Raises
        ------
        RuntimeError
            If it fails; the message holds all that it wrote.
        """
        found = subprocess.run(
            list(map(str, command)),
            env={**self.variables(), **(variables or {})},
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
        )
        if found.returncode:
            raise RuntimeError(f"{shlex.join(found.args)} ended with {found.returncode}:\n{found.stdout}{found.stderr}")
        return found.stdout


@dataclass
class Process:
    """A process of a deployment. Memory is in bytes.

    Attributes
    ----------
    kind : str
        Its command, as ``flwr-clientapp``.
    node : str
        ``superlink``, or the SuperNode that it belongs to, as ``supernode-0``.
    pid : int
        Its id.
    began : int or None
        What was resident when the run began; None if the process came later.
    peak : int
        Its peak since the run began (VmHWM), as last seen: what it took in its last 20 ms may be missing.
    running : bool
        Whether it was there when last looked for.
    """

    kind: str
    node: str
    pid: int
    began: int | None = None
    peak: int = 0
    running: bool = True

    def __str__(self) -> str:
        return f"{self.kind} {self.pid} of {self.node}"


@dataclass
class Run:
    """A run of a Flower app.

    Attributes
    ----------
    output : str
        What ``flwr run --stream`` has written so far: above all, the ServerApp's log.
    status : str
        ``running``; then Flower's word for how it ended (``finished:completed``, ``finished:failed``, ``finished:stopped``),
        or ``timed out``, ``not started``, or ``unknown`` if the SuperLink is gone.
    exit_status : int or None
        Of ``flwr run``, which is 0 even if the ServerApp failed; None if it was ended because of the timeout.
    seconds : float
        From the start of ``flwr run`` until the log ended.
    processes : list of Process
        The processes of the deployment, those first that were there from the start.
    """

    output: str = ""
    status: str = "running"
    exit_status: int | None = None
    seconds: float = 0.0
    processes: list[Process] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Process]:
        """The processes of a kind, in the order in which they were seen."""
        return [process for process in self.processes if process.kind == kind]


class RunFailed(RuntimeError):
    """A run did not complete.

    Attributes
    ----------
    run : Run
        How far it came.
    """

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


class Deployment:
    """A SuperLink and SuperNodes on free ports of 127.0.0.1, from ``with`` to the end of its block.

    When the block ends, every process that belongs to the deployment is killed, however it ends. A SIGKILL of this process
    kills SuperLink and SuperNodes, too, where there is ``setpriv``; theirs follow by Flower's own doing, unless they hang.

    Parameters
    ----------
    superlink : Environment
        Where the SuperLink and its ServerApps run.
    supernodes : sequence of Environment
        Where each SuperNode and its ClientApps run; their node config has ``partition-id`` and ``num-partitions``.
    folder : Path, optional
        For logs, and what Flower writes; if it is not given, a temporary one, removed in the end.
    timeout : float
        Seconds until all must be up.

    Attributes
    ----------
    pids : dict of str to int
        The SuperLink's process and the SuperNodes': ``superlink``, ``supernode-0``, ...
    folder : Path
        Where the logs are.
    left : list of Process
        After the block, what of ServerApps and ClientApps was still running and had to be killed.
    """

    def __init__(
        self, superlink: Environment, supernodes: Sequence[Environment], *, folder: Path | None = None, timeout: float = 60
    ) -> None:
        self.environments = {"superlink": superlink} | {f"supernode-{i}": node for i, node in enumerate(supernodes)}
        self.timeout = timeout
        self.pids: dict[str, int] = {}
        self.left: list[Process] = []
        self._given = folder

    # ------------------------------------------------------------------------------------ start and end

    def __enter__(self) -> Self:
        self.folder = Path(self._given or tempfile.mkdtemp(prefix="flower-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._family = Family(f"{self.folder}:{random.getrandbits(64):x}:")
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._address: dict[str, str] = {}
        try:
            self._start_all()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _start_all(self) -> None:
        deadline = time.monotonic() + self.timeout
        ports = free_ports(len(self.environments))
        self._address = {name: f"{HOST}:{port}" for name, port in zip(self.environments, ports, strict=True)}
        nodes = len(self.environments) - 1
        link = self._address["superlink"]
        connection = f'[superlink]\ndefault = "loop"\n[superlink.loop]\naddress = "{link}"\ninsecure = true\n'
        (self._home("superlink") / "config.toml").write_text(connection)
        self._start("superlink", "flower-superlink", "--disable-runtime-dependency-installation")
        for i in range(nodes):
            node_config = f"partition-id={i} num-partitions={nodes}"
            self._start(f"supernode-{i}", "flower-supernode", "--superlink", link, "--node-config", node_config)
        for name in self.environments:
            self._await(name, partial(self._is_up, name), deadline)

    def _home(self, name: str) -> Path:
        """The FLWR_HOME of a process: one each, because two that install an app in one place get in each other's way."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return home

    def _start(self, name: str, *command: str) -> None:
        host, port = self._address[name].split(":")
        setpriv = shutil.which("setpriv")
        with_us = (setpriv, "--pdeathsig", "KILL") if setpriv else ()
        with open(self.folder / f"{name}.log", "wb") as log:
            self._started[name] = subprocess.Popen(
                [*with_us, *command, "--insecure", "--host", host, "--port", port],
                env=self._variables(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process, which ends the others
            )
        self.pids[name] = self._started[name].pid

    def _variables(self, name: str) -> dict[str, str]:
        return {**self.environments[name].variables(), "FLWR_HOME": str(self._home(name)), MARK: self._family.mark + name}

    def _is_up(self, name: str) -> bool:
        # A SuperNode answers before it is known to the SuperLink; it logs its id when it is.
        if name != "superlink":
            return "SuperNode ID:" in self.log(name)
        try:
            with urllib.request.urlopen(f"http://{self._address[name]}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _await(self, name: str, condition: Callable[[], bool], deadline: float) -> None:
        while not condition():
            ended = self._started[name].poll()
            if ended is not None:
                raise RuntimeError(f"{name} ended with {ended} before it was up:\n{self.tail(name)}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} was not up within {self.timeout:g} s:\n{self.tail(name)}")
            time.sleep(SAMPLE_EVERY)

    def _end(self) -> None:
        self.left = [process for process in self.processes() if process.kind in APPS]
        deadline = time.monotonic() + self.timeout
        # What is being started while the others are killed is met the next time round.
        while running := self.processes():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ended by SIGKILL within {self.timeout:g} s: {', '.join(map(str, running))}")
            for process in running:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(SAMPLE_EVERY)
        for started in self._started.values():
            started.wait()
        if self._given is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------ what is seen

    def log(self, name: str) -> str:
        """A log so far: of ``superlink``, of ``supernode-0`` with its ClientApps, or of the latest ``run``."""
        colours = r"\x1b\[[\d;]*m"
        return re.sub(colours, "", (self.folder / f"{name}.log").read_text(errors="replace"))

    def tail(self, name: str, lines: int = 20) -> str:
        """The end of a log."""
        return "\n".join(self.log(name).splitlines()[-lines:])

    def processes(self) -> list[Process]:
        """The processes that are running now."""
        return [process for process in self._family.look() if process.running]

    def kill(self, name: str) -> None:
        """Kill the SuperLink or a SuperNode (SIGKILL), and wait until it has ended."""
        self._started[name].kill()
        self._started[name].wait()

    # ------------------------------------------------------------------------------------ runs

    def run(
        self,
        app: Path,
        config: Mapping[str, object] | None = None,
        *,
        timeout: float = 300,
        check: bool = True,
        watch: Callable[[Run], None] = lambda run: None,
    ) -> Run:
        """Run a Flower app to its end.

        Parameters
        ----------
        app : Path
            The folder with its ``pyproject.toml``.
        config : mapping, optional
            Overrides ``[tool.flwr.app.config]``, where each key must be.
        timeout : float
            Seconds until it must have ended. Flower's strategies wait an hour for a reply that does not come.
        check : bool
            Whether a run that did not complete is an error.
        watch : callable
            Called some 50 times a second with the run as it is by then. It may kill processes; what it raises ends the run.

        Raises
        ------
        RunFailed
            If `check` and the run did not complete; the message holds the ends of the logs, and says what was still running.
        """
        self._family.begin()
        run = Run()
        command = ["flwr", "run", str(app), "loop", "--stream"]
        if config:
            overrides = self.folder / "run.toml"
            overrides.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
            command += ["-c", str(overrides)]
        began = time.monotonic()
        with open(self.folder / "run.log", "wb") as file, self._command(*command, stdout=file) as process:
            try:
                while process.poll() is None and time.monotonic() < began + timeout:
                    run.processes, run.output, run.seconds = self._flower(), self.log("run"), time.monotonic() - began
                    watch(run)
                    time.sleep(SAMPLE_EVERY)
                run.exit_status = process.poll()
            finally:
                process.kill()
        run.processes, run.output, run.seconds = self._flower(), self.log("run"), time.monotonic() - began
        if run.exit_status == 0:
            self._let_end(run)
        run.status = "timed out" if run.exit_status is None else self._status(run.output)
        if check and run.status != "finished:completed":
            raise RunFailed(self._report(app, run), run)
        return run

    def _let_end(self, run: Run) -> None:
        """Wait for the apps: the log ends before their processes do."""
        deadline = time.monotonic() + ENDS_WITHIN
        while time.monotonic() < deadline and any(process.running and process.kind in APPS for process in run.processes):
            time.sleep(SAMPLE_EVERY)
            run.processes = self._flower()

    def _flower(self) -> list[Process]:
        """Flower's own processes, without what an app or a package starts."""
        return [process for process in self._family.look() if process.kind in KINDS]

    def _command(self, *command: str, stdout: IO[bytes] | int) -> subprocess.Popen[bytes]:
        """Start a command of Flower's that is no part of the deployment."""
        environment = self.environments["superlink"]
        return subprocess.Popen(
            command,
            env={**environment.variables(), "FLWR_HOME": str(self._home("superlink"))},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _status(self, output: str) -> str:
        """How a run ended: `flwr run` does not say."""
        started = re.search(r"Successfully started run (\d+)", output)
        if started is None:
            return "not started"
        command = ("flwr", "list", "loop", "--run-id", started[1], "--format", "json")
        with self._command(*command, stdout=subprocess.PIPE) as process:
            found = process.communicate()[0]
        runs = json.loads(found or "{}").get("runs")  # none if the SuperLink is gone; the exit status is 0 even then
        return runs[0]["status"] if runs else "unknown"

    def _report(self, app: Path, run: Run) -> str:
        """Why a run did not complete, as far as the logs tell."""
        running = ", ".join(str(process) for process in run.processes if process.running) or "nothing"
        logs = "\n".join(f"--- {name}\n{self.tail(name)}" for name in ("run", *self.environments))
        return f"{app}: {run.status} after {run.seconds:.0f} s; still running: {running}\n{logs}"


class Family:
    """All processes that carry a mark in their environment."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self._members: dict[int, Process] = {}
        self._strangers: set[int] = set()

    def begin(self) -> None:
        """Forget those that have ended, and the peaks of the others."""
        self._members = {process.pid: process for process in self.look() if process.running}
        for process in self._members.values():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # VmHWM starts again from what is resident
            process.began = process.peak = _memory(process.pid, "VmRSS")

    def look(self) -> list[Process]:
        """The processes that are there and those that were, with what they have taken so far."""
        pids = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}
        self._strangers &= pids
        for pid in pids - self._strangers - self._members.keys():
            variables = _read(pid, "environ")
            found = re.search(rf"(?:^|\0){MARK}={re.escape(self.mark)}([^\0]*)", variables)
            if found:
                self._members[pid] = Process("", found[1], pid)
            elif variables:  # there are none while a process is being replaced by another program
                self._strangers.add(pid)
        for process in self._members.values():
            if process.running:
                self._update(process)
        return list(self._members.values())

    def _update(self, process: Process) -> None:
        words = [Path(word).name for word in _read(process.pid, "cmdline").split("\0")]
        kind = next((word for word in words if word in KINDS), words[0])
        if kind and kind != process.kind:  # until then it was a copy of the process that started it, memory and all
            process.kind, process.peak = kind, 0
        memory = _memory(process.pid, "VmHWM")
        process.peak = max(process.peak, memory)
        process.running = memory > 0


def _read(pid: int, name: str) -> str:
    """A file of a process's in /proc; empty if it has ended, or is none of ours."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def _memory(pid: int, name: str) -> int:
    """``VmRSS`` or ``VmHWM`` in bytes, 0 for a process that has ended."""
    found = re.search(rf"^{name}:\s*(\d+)", _read(pid, "status"), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports from {PORTS[0]} to {PORTS[-1]}")
