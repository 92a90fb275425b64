"""Real SuperLinks, SuperNodes, ServerApps and ClientApps on loopback: stock, ours, and what goes wrong between them."""

import re
import shutil
import time
from pathlib import Path

import pytest

from profiling.deployment import Deployment, Environment, Run

APP = Path(__file__).parent / "app"
HERE = Path(__file__).parent
ENDS_WITHIN = 60  # seconds that a process of ours may take to end once its other end is gone

pytestmark = pytest.mark.memory  # real processes do not run under a sanitizer


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environments")
    return {kind: Environment(folder / kind, flat=kind == "flat", quick=True) for kind in ("stock", "flat")}


@pytest.mark.parametrize("server, client", [("flat", "flat"), ("stock", "flat"), ("flat", "stock")])
def test_every_bit_arrives(environments, server, client):
    config = {"server": server, "client": client, "rounds": 2, "small": 20}
    with Deployment(environments[server], [environments[client]]) as deployment:
        run = deployment.run(APP, config, timeout=180)
    assert "EXACT 2 rounds, 1 nodes, 35 arrays" in run.output and deployment.left == []
    assert deployment.environments["superlink"] is environments[server]


def test_two_nodes_and_a_parameters_record(environments):
    config = {"server": "flat", "client": "flat", "nodes": 2, "record": "ParametersRecord", "mib": 8}
    with Deployment(environments["flat"], [environments["flat"]] * 2) as deployment:
        run = deployment.run(APP, config, timeout=180)
    assert "EXACT 1 rounds, 2 nodes, 15 arrays" in run.output


class Enough(Exception):
    """The ClientApp's process has ended: the ServerApp would wait for its reply until the push session has expired."""


def run_until_the_client_has_ended(deployment: Deployment, config: dict, kill: bool = False) -> str:
    """Run the app until its ClientApp has come and gone; what the SuperNode's log says of it."""
    came = gone = killed = 0.0

    def watch(run: Run) -> None:
        nonlocal came, gone, killed
        now = time.monotonic()
        if any(process.running for process in run.of_kind("flwr-clientapp")):
            came = came or now
            if kill and not killed and "TRAINED" in deployment.log("supernode-0"):
                time.sleep(0.2)  # in the middle of the push
                deployment.kill("supernode-0")
                killed = now
            assert not killed or now - killed < ENDS_WITHIN, "the ClientApp's process hangs"
        elif "TRAINED" in deployment.log("supernode-0") or "Exit Code" in deployment.log("supernode-0"):
            gone = gone or now
            if now - gone > 0.5:
                raise Enough

    with pytest.raises(Enough):
        deployment.run(APP, {"server": "flat", "client": "flat"} | config, timeout=150, watch=watch)
    assert came and (killed or not kill)
    return deployment.log("supernode-0")


def is_whole(log: str) -> bool:
    """Whether the client's record was all there to the end, as far as it came to say."""
    said = [line for line in log.splitlines() if "THE RECORD IS" in line]
    return len(said) > 0 and all("THE RECORD IS WHOLE: 15 entries" in line for line in said)


def test_an_app_that_raises(environments):
    with Deployment(environments["flat"], [environments["flat"]]) as deployment:
        run = deployment.run(APP, {"server": "flat", "client": "flat", "fault": "raise"}, timeout=120, check=False)
    assert run.status == "finished:failed" and deployment.left == []
    assert "ERROR REPLY: <class 'ZeroDivisionError'>:<'the app raises'>" in run.output


def test_a_model_that_is_written_to_while_it_is_sent(environments):
    with Deployment(environments["flat"], [environments["flat"]]) as deployment:
        log = run_until_the_client_has_ended(deployment, {"fault": "write"})
    assert "does not match content hash" in log  # it is Flower that refuses it
    assert "ValueError: key 'layer2.weight': the array's memory was written to after its object id was computed" in log
    assert is_whole(log)


def test_a_supernode_that_is_killed_in_the_middle_of_a_push(environments):
    with Deployment(environments["flat"], [environments["flat"]]) as deployment:
        log = run_until_the_client_has_ended(deployment, {"mib": 256}, kill=True)
    assert "Connection attempt failed" in log and "Task stopped." in log
    assert is_whole(log)


@pytest.fixture
def corrupting(tmp_path, request):
    environment = Environment(tmp_path / "corrupting", flat=True, quick=True, variables={"CORRUPT": request.param})
    shutil.copy(HERE / "corrupting.py", environment.packages)
    (environment.packages / "corrupting.pth").write_text("import corrupting\n")
    return environment


@pytest.mark.parametrize("corrupting", ["push-object"], indirect=True)
def test_a_chunk_that_is_corrupted_on_its_way_out(environments, corrupting):
    with Deployment(environments["flat"], [corrupting]) as deployment:
        log = run_until_the_client_has_ended(deployment, {})
    assert "does not match content hash" in log
    assert "ObjectPushError" in log and "while sending key 'layer" in log
    assert is_whole(log)


@pytest.mark.parametrize("corrupting", ["pull-object"], indirect=True)
def test_a_chunk_that_is_corrupted_on_its_way_in(environments, corrupting):
    with Deployment(environments["flat"], [corrupting]) as deployment:
        log = run_until_the_client_has_ended(deployment, {})
    assert re.search("ObjectRefusedError: Failed to pull object with ID '[0-9a-f]{64}': an object was corrupted on its way", log)
    assert "TRAINED" not in log
