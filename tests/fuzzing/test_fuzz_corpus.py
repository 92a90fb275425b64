"""The kept inputs of the fuzzer, and the seeds, tried once with the ordinary build."""

import importlib
from pathlib import Path

import pytest

from fuzz import TARGETS

CORPUS = Path(__file__).parent.parent.parent / "fuzz" / "corpus"
pytestmark = pytest.mark.filterwarnings("ignore")  # NumPy's, of strange descrs, which are none of ours


@pytest.mark.parametrize("target", TARGETS)
def test_the_kept_inputs(target):
    module = importlib.import_module(f"fuzz.{target}")
    paths = sorted((CORPUS / target).iterdir())
    assert paths
    for path in paths:
        try:
            module.check(path.read_bytes())
        except Exception as error:
            error.add_note(str(path))
            raise


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds(target):
    module = importlib.import_module(f"fuzz.{target}")
    for seed in module.seeds():
        module.check(seed)
