"""Flower's Ray simulation, which pickles messages: the same bits with Flower's records, with ours, and under the hook."""

import re
from pathlib import Path

import pytest

from profiling.deployment import Environment

SCRIPT = Path(__file__).parent / "simulated.py"

pytestmark = pytest.mark.memory  # real processes do not run under a sanitizer


def test_the_same_bits(tmp_path):
    environments = {flat: Environment(tmp_path / f"flat={flat}", flat=flat) for flat in (False, True)}
    found = {}
    for flat, module in ((False, "flwr.app"), (False, "flatrecord.flower"), (True, "flwr.app")):
        environment = environments[flat]
        printed = environment.run(environment.python, SCRIPT, module, timeout=200)
        (found[flat, module],) = re.findall(r"^RESULT (\w{64}) (\d \d)$", printed, re.MULTILINE)
    digests = {digest for digest, _ in found.values()}
    assert len(digests) == 1
    # Whose records the ClientApps received in each round; in the second what FedAvg has made, by Flower's own name.
    assert [ours for _, ours in found.values()] == ["0 0", "1 0", "1 1"]
