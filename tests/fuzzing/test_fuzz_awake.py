"""The fuzzer finds what is there to be found, in the compiled code and led by what that tells it."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILD = HERE.parent.parent / "build" / "fuzzed"
MAGIC = b"\x93NUMPY"
# make fuzz runs these first of all; make test does, too, where that has been built.
pytestmark = pytest.mark.skipif(not BUILD.exists(), reason="needs what make fuzz installs and builds")


@pytest.fixture
def fuzz(tmp_path, monkeypatch):
    """Fuzz the planted target, from nothing."""
    from fuzz.session import run

    def fuzz(planted: str, *arguments: str):
        monkeypatch.setenv("PLANTED", planted)
        (tmp_path / "corpus").mkdir()
        arguments = [*arguments, "-use_value_profile=1", "-seed=1", tmp_path / "corpus"]
        return run("planted", tmp_path / "log", tmp_path / "findings", arguments, [HERE])

    return fuzz


def test_a_planted_overflow_of_the_header_parser_is_found(fuzz):
    outcome = fuzz("overflow", "-max_total_time=300")
    assert outcome.status != 0 and "heap-buffer-overflow" in outcome.log, outcome.log
    # It was the parser's own code, and with something that passes for the beginning of a header.
    assert re.search(r"SUMMARY: AddressSanitizer: heap-buffer-overflow .*_core/npy\.c", outcome.log), outcome.log
    assert outcome.finding.read_bytes().startswith(MAGIC)


def test_without_the_bug_nothing_is_found_and_the_compiled_code_leads_on(fuzz, tmp_path):
    outcome = fuzz("nothing", "-runs=50000")
    assert outcome.status == 0 and outcome.finding is None and outcome.inputs >= 50000, outcome.log
    assert any(path.read_bytes().startswith(MAGIC) for path in (tmp_path / "corpus").iterdir())
    (first,) = re.findall(r"INITED cov: (\d+)", outcome.log)
    assert outcome.edges > int(first) + 50, outcome.log
    # All modules of the core count.
    assert re.search(r"Loaded (\d+) modules", outcome.log)[1] == str(len(list((BUILD / "flatrecord" / "_core").glob("*.so"))))


def test_what_the_process_takes_that_started_it_does_not_count(fuzz):
    """What the tests have is no part of the fuzzer's own peak, by which its limit goes."""
    large = bytearray(b"x") * (1 << 30)
    outcome = fuzz("nothing", "-runs=100")
    assert outcome.status == 0, outcome.log
    assert int(re.search(r"stat::peak_rss_mb: +(\d+)", outcome.log)[1]) < len(large) >> 20
    del large


def test_memory_on_an_inputs_word_is_found(fuzz):
    outcome = fuzz("memory", "-max_total_time=300")
    assert outcome.status != 0 and "out-of-memory (malloc(" in outcome.log, outcome.log
