"""The programs in profiling/ run, and what they print is what they measured."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from profiling import against, growth
from profiling.demo import choose
from profiling.models import ENTRY, LLAMAS
from profiling.paths import PATHS
from profiling.process import ENVIRONMENT, run
from profiling.verdict import judged

ROOT = Path(__file__).parent.parent
GIB = 1 << 30

pytestmark = pytest.mark.memory


def program(*arguments) -> str:
    command = [sys.executable, "-m", "profiling", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo(tmp_path):
    picture = tmp_path / "memory.png"
    printed = program("demo", "--gib", 0.25, "--picture", picture)
    assert "all-MiniLM-L6-v2, keep_input=False: 104 of 104 arrays bit-equal" in printed
    assert "keep_input=True: 11 of 11 arrays bit-equal" in printed
    assert "torch, keep_input=False: 11 of 11 arrays bit-equal" in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith(("all-MiniLM", "Llama")) and ":" not in line]
    assert [float(row[-2]) for row in rows] == pytest.approx([1, 1, 2, 1], abs=0.02)  # peak / model
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000


@pytest.mark.parametrize("options", [["--gib", "-1"], ["--gib", "0"], ["--gib", "nan"], ["--picture", "no/such/x.png"]])
def test_the_demo_refuses(options):
    command = [sys.executable, "-m", "profiling", "demo", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2 and f"argument {options[0]}: " in done.stderr


def test_a_round_with_torch_takes_the_model_once_and_with_flower_three_times(tmp_path):
    def round(library: str, layers: int) -> dict:
        return run("compare", "round", library, layers, ENTRY, 1, tmp_path / "x", "all", environment=ENVIRONMENT).result

    result, control = round("flatrecord", 128), round("flwr", 32)
    assert result["nbytes"] == 2 * GIB and result["equal"] and control["equal"]
    assert list(result["steps"]) == ["record → model", "one step of SGD", "model → record", "chunks read"]
    assert max(result["steps"].values()) <= result["resident"] <= 1.05 * result["nbytes"]
    assert result["allocated"] <= 1.05 * result["nbytes"]
    assert max(control["steps"].values()) >= 2.9 * control["nbytes"] and control["allocated"] >= 2.9 * control["nbytes"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> tuple[Path, dict]:
    """A small comparison of everything: the folder with its report, and what it says in JSON."""
    out = tmp_path_factory.mktemp("compared")
    printed = program("compare", "--quick", "--gib", 0.0625, "--out", out)
    assert "Every library gave the right values: yes" in printed
    assert "flatrecord took no more memory than it may: yes" in printed
    assert len(re.findall(r"^What flatrecord needs beside the model does not grow with it .*: yes$", printed, re.MULTILINE)) == 1
    return out, json.loads((out / "report.json").read_text())


def peaks(found: dict, path: str, name: str, end: str = "") -> list[float]:
    """Peaks as multiples of the model, by VmHWM and by memray."""
    result = found["paths"][path][name]
    return [(result[end] if end else result)[measure] / found["model"]["nbytes"] for measure in ("resident", "allocated")]


def test_compared_ours_is_flat(compared):
    _, found = compared
    for path, name in [
        *(("take", name) for name in ("flatrecord, ndarrays", "flatrecord, state_dict")),
        ("to-arrays", "flatrecord, keep_input=False"),
        *(("save", name) for name in ("flatrecord", "flatrecord, keep_input=False")),
        ("load", "flatrecord"),
        ("pipe", "flatrecord"),
        ("wire-out", "flatrecord, write"),
        ("wire-in", "flatrecord, read"),
    ]:
        assert peaks(found, path, name) == pytest.approx([1, 1], abs=0.04), (path, name)
    assert peaks(found, "pipe", "flatrecord", "receiver") == pytest.approx([1, 1], abs=0.04)
    assert peaks(found, "snapshot", "flatrecord") == pytest.approx([2, 2], abs=0.04)
    assert peaks(found, "mapped", "flatrecord") == pytest.approx([0, 1], abs=0.04)
    for path in ("wire-out", "wire-in"):  # chunks of 5 MiB are under way, in a model of 64
        assert max(peaks(found, path, "flatrecord, Flower's objects")) < 1.4
    assert max(peaks(found, "round", "flatrecord")) < 1.6  # layers of 16 MiB
    assert found["paths"]["save"]["flatrecord, keep_input=False"]["end"] < 0.1 * found["model"]["nbytes"]


def test_compared_others_show_what_could_have_been_seen(compared):
    _, found = compared
    for path, name, end, least in [
        ("take", "flwr, ndarrays", "", 1.3),  # two more of the four entries
        ("snapshot", "flwr", "", 1.9),
        ("snapshot", "copy.deepcopy", "", 1.9),
        ("to-arrays", "flwr", "", 1.9),
        ("load", "safetensors", "", 1.9),
        ("pipe", "safetensors", "", 2.5),
        ("pipe", "safetensors", "receiver", 1.9),
        ("pipe", "torch.save", "receiver", 1.9),
        ("wire-out", "safetensors", "", 2.5),
        ("wire-in", "flwr, Flower's objects", "", 1.9),
        ("round", "flwr", "", 2.9),
    ]:
        assert min(peaks(found, path, name, end)) > least, (path, name)
    control = found["growth"]["sizes"]["snapshot: copy.deepcopy"]["points"]
    assert growth.is_flat(control) is False and growth.slope(control, "sizes", "allocated") == pytest.approx(1, abs=0.1)


def test_compared_the_report_is_complete(compared):
    out, found = compared
    report = (out / "report.md").read_text()
    assert "    python -m profiling compare --quick --gib 0.0625\n" in report and str(out) not in report
    for path, way in PATHS.items():
        assert f"\n## {way.title.capitalize()}\n" in report
        for contender in way.contenders:
            assert contender.name in report
            if not contender.missing():
                assert {"seconds", "resident", "allocated", "equal"} <= found["paths"][path][contender.name].keys()
            else:
                assert "not installed" in found["missing"][path][contender.name]
        assert all(limit in found["limits"] for limit in way.limit)
    for name in ("peaks", "timeline", "growth"):
        picture = (out / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 10_000 and f"]({name}.png)" in report
    assert found["versions"]["flatrecord"] in report and found["machine"]["kernel"] in report
    assert len(found["limits"]) == 14 and all(seconds > 0 for seconds in found["limits"].values())
    assert {axis: len(lines) for axis, lines in found["growth"].items()} == {"entries": 3, "sizes": 4}


def test_compared_with_itself_nothing_has_changed(compared):
    _, found = compared
    same = against.changes(found, found)
    assert same.rows == [] and same.notes == [] and "Nothing has changed." in against.told(same)


def test_compared_with_another_run(compared, tmp_path):
    _, found = compared
    other = copy.deepcopy(found)
    other["paths"]["take"]["flatrecord, ndarrays"]["resident"] *= 2
    other["paths"]["save"]["flatrecord"]["seconds"] /= 2
    other["paths"]["pipe"]["flatrecord"]["receiver"]["allocated"] //= 2
    other["versions"]["flwr"] = "0.0"
    del other["paths"]["load"]["flatrecord"]
    changes = against.changes(other, found)
    assert [(change.where, change.what, change.worse) for change in changes.rows] == [
        ("take: flatrecord, ndarrays", "peak / model, VmHWM", False),
        ("save: flatrecord", "time / limit", True),
        ("pipe: flatrecord", "receiver, peak / model, memray", True),
    ]
    assert "Not measured then: load: flatrecord." in changes.notes and any("flwr 0.0 then" in note for note in changes.notes)
    (tmp_path / "other.json").write_text(json.dumps(other))
    arguments = ("compare", "take", "--gib", 0.125, "--passes", 1, "--against", tmp_path / "other.json", "--out", tmp_path / "out")
    printed = program(*arguments)
    assert re.search(r"^take: flatrecord, ndarrays +peak / model, VmHWM +2\.0\d +1\.00$", printed, re.MULTILINE)
    assert "0.0625 GiB then and 0.125 GiB now" in printed
    report = (tmp_path / "out" / "report.md").read_text()
    assert "## What has changed" in report and "| take: flatrecord, ndarrays | peak / model, VmHWM | 2.0" in report
    assert "not asked for: snapshot, " in report


def test_compared_what_is_wrong_is_said(compared):
    _, found = compared
    broken = copy.deepcopy(found)
    broken["paths"]["load"]["joblib"]["equal"] = False
    broken["paths"]["take"]["flatrecord, ndarrays"]["allocated"] = 2 * broken["model"]["nbytes"]
    broken["growth"]["sizes"]["take: flatrecord, ndarrays"]["points"][-1]["resident"] += 32 << 20
    values, flat, grows = judged(broken)
    assert values[0].endswith("(not load: joblib)") and not values[1]
    assert flat[0].endswith("(not take: flatrecord, ndarrays with 2.00)") and not flat[1]
    assert grows[0].endswith("(not take: flatrecord, ndarrays)") and not grows[1]
    later = copy.deepcopy(found)  # a pass that needed more than the first, whose peak is the one reported
    later["paths"]["pipe"]["flatrecord"]["receiver"]["highest"] = 2 * later["model"]["nbytes"]
    _, (what, met), _ = judged(later)
    assert what.endswith("(not pipe: flatrecord, receiver with 2.00)") and not met


@pytest.mark.parametrize(
    "options, said",
    [
        (["nonsense"], "no path nonsense"),
        (["--gib", "0"], "--gib"),
        (["--gib", "-1"], "--gib"),
        (["--gib", "nan"], "--gib"),
        (["--gib", "1000000"], "--gib"),
        (["--gib", "100000"], "of memory are free"),
        (["--passes", "0"], "--passes"),
        (["--against", "README.md"], "README.md cannot be read"),
        (["--against", "no/such.json"], "no/such.json cannot be read"),
        (["--folder", "no/such"], "--folder"),
        (["--out", "no/such/folder"], "--out"),
    ],
)
def test_compare_refuses(options, said):
    command = [sys.executable, "-m", "profiling", "compare", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2 and said in done.stdout, done.stdout + done.stderr


def test_compare_refuses_json_that_is_no_report(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("[]")
    command = [sys.executable, "-m", "profiling", "compare", "--against", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2 and "is not the report.json of such a run" in done.stdout.replace("\n", " ")


def test_a_real_client_takes_the_model_once():
    command = [sys.executable, "-m", "profiling", "flower", "--mib", "1024", "--passes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT)
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1 also where the machine was busy
    ours = re.findall(r"^flatrecord, (?:64 arrays|1 array): took ([\d.]+) times the model", done.stdout, re.MULTILINE)
    assert len(ours) == 2 and all(float(peak) <= 1.10 for peak in ours), done.stdout
    (whole,) = [line.split()[-4:] for line in done.stdout.splitlines() if "the whole round" in line]
    assert all(float(peak) >= 3 for peak in whole[::2]) and all(float(peak) <= 1.10 for peak in whole[1::2])
    (exact,) = [line.split()[-4:] for line in done.stdout.splitlines() if "bit-exact" in line]
    assert exact == ["yes"] * 4
    (hashed,) = [line.split()[-4:] for line in done.stdout.splitlines() if "hashed to prepare" in line]
    assert hashed == ["2.00", "1.00", "2.00", "1.00"]  # one pass over the payload


def test_a_client_that_is_limited():
    printed = program("flower", "--mib", 256, "--arrays", 8, "--passes", 1, "--limit-gib", 0.75, "--dtype", "bfloat16")
    assert len(re.findall(r"flwr, (?:8 arrays|1 array): killed at its limit", printed)) == 2
    assert len(re.findall(r"flatrecord, (?:8 arrays|1 array): did its round", printed)) == 2


@pytest.mark.parametrize("options", [["--mib", "0"], ["--passes", "0"], ["--latency-ms", "-1"], ["--mib", "10000000"], ["--arrays", "0"]])
def test_flower_refuses(options):
    command = [sys.executable, "-m", "profiling", "flower", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2 and ("--mib" in done.stdout or "--passes" in done.stdout)


def test_start():
    printed = program("start", "--rounds", 3)
    assert len(re.findall(r"ms without the hook, [\d.]+ with it, [\d.]+ times", printed)) == 2


def test_speed():
    printed = program("speed", "--gib", 0.125, "--entries", 2000, "--passes", 1)
    copies = ("the machine: memcpy, a share a thread", "Array(ndarray)", "Array.numpy(copy=True)", "transposed, uint8", "1 B", "128 MiB")
    for name in (*copies, "the machine: hashlib, one thread", "take", "Flower's objects", "wire in"):
        assert f"\n{name}  " in printed, name
    assert len(re.findall(r"^\d+ arrays? of (?:16|1) MiB: (?:none|32 MiB, as it is|all of it) ", printed, re.MULTILINE)) == 6
    assert len(re.findall(r" (?:met|missed)$", printed, re.MULTILINE)) == 7
    (held,) = re.findall(r"entries: at most 200 bytes each +([\d.]+) B", printed)
    assert 60 < float(held) <= 200  # which no other load on the machine changes
    assert "wrong values" not in printed


@pytest.mark.parametrize("options", [["--gib", "0"], ["--gib", "1000000"], ["--passes", "0"], ["--entries", "0"], ["nonsense"]])
def test_speed_refuses(options):
    command = [sys.executable, "-m", "profiling", "speed", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2 and ("--gib" in done.stdout or "no section nonsense" in done.stdout)


def test_micro():
    printed = program("micro", "--entries", 100, "--rounds", 3)
    for name in ("get", "in", "len", "iterate", "set", "pop", "take an ndarray", "Array(ndarray)", "bytes an entry"):
        assert f"\n{name}  " in printed
    assert "flwr" in printed and "is not installed" not in printed


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.1-8b", 8_030_261_248),
        ("tinyllama-1.1b", 1_100_048_384),
        ("smollm2-1.7b", 1_711_376_384),
        ("smollm2-360m", 361_821_120),
        ("smollm2-135m", 134_515_008),
    ],
)
def test_the_models_have_as_many_weights_as_published(name, parameters):
    assert LLAMAS[name].parameters == parameters


@pytest.mark.parametrize("gib", [0.1, 0.5, 1, 3, 7.5])
def test_a_resized_model_is_about_as_large_as_asked(gib):
    assert LLAMAS["smollm2-360m"].resized(gib * GIB).nbytes == pytest.approx(gib * GIB, rel=0.5)


def test_the_demo_chooses_a_model_that_fits_twice():
    assert choose("llama-3.2-1b", 0.0, 24 * GIB) == ("llama-3.2-1b", 0.0)
    assert choose("llama-3.2-1b", 2.0, 24 * GIB) == ("llama-3.2-1b", 2.0)
    assert choose("llama-3.2-1b", 0.0, 4 * GIB) == ("smollm2-360m", 0.0)
    assert choose("llama-3.1-8b", 0.0, 16 * GIB)[0] == "smollm2-1.7b"
    name, gib = choose("llama-3.2-1b", 0.0, 2 * GIB)
    assert 2 * LLAMAS[name].resized(gib * GIB).nbytes < GIB


def test_a_case_that_fails_says_why():
    with pytest.raises(RuntimeError, match="KeyError: 'no such model'"):
        run("llama", "no such model", 0, "take")
