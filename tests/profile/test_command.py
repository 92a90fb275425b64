"""``flatrecord profile``: a doubled model is found with its line, whatever becomes of the program."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.memory

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "profile"
MIB = 1 << 20
MODEL = 256 * MIB


def profile(*arguments, cwd=ROOT, status=0, **options) -> str:
    command = [sys.executable, "-m", "flatrecord", "profile", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, **options)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def line_of(script: Path, source: str) -> int:
    """The number of the only line with this source."""
    (number,) = [i for i, line in enumerate(script.read_text().splitlines(), 1) if source in line]
    return number


@pytest.fixture
def script(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "script.py"
        path.write_text(text)
        return path

    return write


def test_a_doubled_model_is_found_with_its_line(tmp_path):
    doubled = EXAMPLES / "doubled.py"
    line = line_of(doubled, "array.copy()")
    printed = profile("--json", tmp_path / "x.json", "--max-ratio", 1.05, "examples/profile/doubled.py", status=3)
    assert re.search(r"^peak +512\.\d\d MiB +2\.0 models, \d", printed, re.MULTILINE)
    assert f"\n  examples/profile/doubled.py:{line} in best_so_far holds 1.0 models more (256.00 MiB), called from" in printed
    assert "The peak is 2.000 models, more than the 1.05 of --max-ratio." in printed
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["model"]["nbytes"] == MODEL and found["model"]["entries"] == 16
    assert found["model"]["source"] == "ArrayRecord"
    assert found["model"]["where"] == f"examples/profile/doubled.py:{line_of(doubled, 'ArrayRecord(model')}"
    assert found["peak"]["models"] == pytest.approx(2, abs=0.001)
    assert found["peak"]["nbytes"] == found["peak"]["imports"] + found["peak"]["counted"]
    first, second = found["held_at_peak"]
    assert first["line"] == line_of(doubled, "np.full") and first["beyond_one_model"] == 0
    assert first["called"] == "numpy.full" and first["since"] < second["since"] <= found["peak"]["seconds"] <= found["seconds"]
    assert second["line"] == line and second["function"] == "best_so_far" and second["models"] == pytest.approx(1, abs=0.001)
    assert second["beyond_one_model"] == pytest.approx(MODEL, rel=0.001) and "array.copy()" in second["source"]
    assert second["callers"] == [f"examples/profile/doubled.py:{line_of(doubled, 'best = ')}"]
    assert [call["name"] for call in found["calls"]] == ["make the model", "train", "ArrayRecord"]
    assert all(0 <= call["began"] <= call["ended"] <= found["seconds"] for call in found["calls"])


def test_a_flat_one_passes():
    printed = profile("--max-ratio", 1.05, "examples/profile/flat.py")
    assert re.search(r"^peak +256\.\d\d MiB +1\.0 models", printed, re.MULTILINE) and "Beyond" not in printed


def test_pictures_and_flame_graph(tmp_path):
    names = ["x.png", "x.svg", "x.html", "x.bin"]
    png, svg, html, capture = (tmp_path / name for name in names)
    printed = profile("--plot", png, "--html", html, "--capture", capture, EXAMPLES / "doubled.py", cwd=tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 20_000
    text = html.read_text()
    assert "memray" in text and "best_so_far" in text
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=.https?:", text)  # it opens where there is no network
    assert capture.stat().st_size and all(f": {tmp_path / name}" in printed for name in ("x.png", "x.html", "x.bin"))
    profile("--plot", svg, EXAMPLES / "doubled.py")
    drawn = svg.read_text()
    for text in ("1 × model", "2 × model", "peak: 2.0 models", "memory of the process", "make the model", "train", "array.copy()"):
        assert text in drawn


def test_what_the_model_is_taken_from(script, tmp_path):
    found = script("""
import numpy as np, safetensors.numpy, safetensors.torch, torch, flwr.app
import flatrecord, flatrecord.safetensors
from flatrecord.flower import ArrayRecord

def model(): return {str(i): np.full((256, 1024), i, np.float32) for i in range(3)}

flatrecord.ParametersRecord(model()).save("a.safetensors")
flatrecord.safetensors.load("a.safetensors")
flatrecord.ParametersRecord.from_numpy_ndarrays(list(model().values())).to_numpy_ndarrays(keep_input=False)
safetensors.numpy.save_file(model(), "b.safetensors")
safetensors.torch.load_file("b.safetensors")
ArrayRecord(model())
flwr.app.ArrayRecord(list(model().values()))
layers = torch.nn.Sequential(torch.nn.Linear(512, 1024, bias=False), torch.nn.Linear(1024, 512, bias=False))
layers[0].weight.data = layers[1].weight.data.T  # tied: counts once
torch.save({"epoch": 3, "model": layers.state_dict()}, "c.pt")
layers.load_state_dict(torch.load("c.pt")["model"])
""")
    profile("--json", tmp_path / "x.json", found.name, cwd=tmp_path)
    calls = json.loads((tmp_path / "x.json").read_text())["calls"]
    seen = {(call["name"], call["nbytes"] // MIB, call["entries"]) for call in calls}
    assert seen == {
        *((name, 3, 3) for name in ("ParametersRecord", "ParametersRecord.save", "flatrecord.safetensors.load")),
        *((f"ParametersRecord.{name}", 3, 3) for name in ("from_numpy_ndarrays", "to_numpy_ndarrays")),
        *((f"safetensors.{name}", 3, 3) for name in ("numpy.save_file", "torch.load_file")),
        ("ArrayRecord", 3, 3),
        *((name, 2, 1) for name in ("Module.state_dict", "torch.save", "torch.load", "Module.load_state_dict")),
    }
    assert {call["where"].partition(":")[0] for call in calls} == {"script.py"}


def test_a_size_that_is_given(script):
    small = script("import numpy as np\nx = np.ones(6 << 20, np.uint8)\n")
    assert "unknown" in profile(small) and "give --model-bytes" in profile(small)
    assert "--max-ratio: no record or state_dict passed through" in profile("--max-ratio", 2, small, status=1)
    assert re.search(r"peak +6\.\d\d MiB +2\.0 models", profile("--model-bytes", "3MiB", "--max-ratio", 2.1, small))
    assert re.search(r"model +3\.00 MiB +as given", profile("--model-bytes", 3 * MIB, "--max-ratio", 1.9, small, status=3))


def test_libraries_as_they_are_imported_are_not_the_models(script, tmp_path):
    (tmp_path / "own.py").write_text("import numpy as np\nmodel = {'x': np.ones(64 << 20, np.uint8)}\n")
    found = script("import torch\nfrom flatrecord import ArrayRecord\nfrom own import model\nArrayRecord(model, copy=False)\n")
    profile("--json", tmp_path / "x.json", "--max-ratio", 1.05, found)
    peak = json.loads((tmp_path / "x.json").read_text())["peak"]
    assert peak["imports"] > 20 * MIB and peak["models"] == pytest.approx(1, abs=0.05)  # what own.py made is counted


def test_a_module_and_its_arguments(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys; from .part import go; print(__name__, sys.argv[1:]); go()")
    (package / "part.py").write_text("import numpy as np\ndef go():\n    np.ones(9 << 20, np.uint8)\n")
    printed = profile("-m", "package", "--plot", "-m", "y", cwd=tmp_path)
    assert "__main__ ['--plot', '-m', 'y']" in printed and "package/part.py:3 in go" in printed and "9.00 MiB" in printed


def test_a_script_is_run_as_python_runs_it(script, tmp_path):
    found = script("""
import multiprocessing, sys
def double(x): return 2 * x
if __name__ == "__main__":
    print(sys.argv, sys.path[0])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(double, [21]))
    sys.exit(7)
""")
    printed = profile("script.py", "--lr", "3", status=7, cwd=tmp_path)
    plain = subprocess.run([sys.executable, "script.py", "--lr", "3"], capture_output=True, text=True, cwd=tmp_path).stdout
    assert printed.startswith(plain) and "[42]" in plain and found.name in plain
    assert "script.py: exit status 7 after" in printed


def test_an_error_is_shown_as_python_shows_it(script, tmp_path):
    script("def f():\n    raise ValueError('why')\nf()\n")
    printed = profile("script.py", status=1, cwd=tmp_path)
    plain = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path).stderr
    assert plain in printed and "exit status 1 after" in printed


def test_a_program_that_is_killed_is_reported(script):
    found = script("""
import os, signal, numpy as np, flatrecord
model = {"x": np.ones(64 << 20, np.uint8)}
record = flatrecord.ArrayRecord(model)
os.kill(os.getpid(), signal.SIGKILL)
""")
    printed = profile("--max-ratio", 1.05, found, status=137)
    assert "ended by signal 9" in printed and re.search(r"script\.py:4 holds 1\.0 models more \(64\.00 MiB\)", printed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_is_interrupted_is_reported(script, number):
    found = script("import time, numpy as np\nx = np.ones(64 << 20, np.uint8)\nprint('ready', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "flatrecord", "profile", str(found)]
    # A shell's background jobs, of which these tests may be one, are told to ignore Ctrl-C.
    heard = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as Ctrl-C does
        else:
            process.send_signal(number)
        printed = process.stdout.read()
    assert process.returncode == (130 if number == signal.SIGINT else 143), printed
    assert "script.py:2" in printed and "64.00 MiB" in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_to_be_ignored_ends_nothing(script, number):
    found = script("import sys\nprint('ready', flush=True)\nprint(sys.stdin.readline())\n")
    command = [sys.executable, "-m", "flatrecord", "profile", str(found)]
    streams = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with subprocess.Popen(command, **streams, preexec_fn=partial(signal.signal, number, signal.SIG_IGN)) as process:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, number)  # as a terminal does that is closed, of which nohup keeps the program
        printed, _ = process.communicate("went on", timeout=60)
    assert process.returncode == 0 and printed.startswith("went on\n"), printed


def test_a_thread_and_what_is_done_at_exit_are_the_programs(script):
    work = """
import atexit, threading, time, numpy as np, flatrecord
def work():
    time.sleep(0.2)
    model = {"x": np.ones(32 << 20, np.uint8)}
    copy = model["x"].copy()
    flatrecord.ParametersRecord(model)
"""
    for start in ("threading.Thread(target=work).start()", "atexit.register(work)"):
        printed = profile("--max-ratio", 1.5, script(f"{work}{start}\n"), status=3)
        assert "2.0 models" in printed and "script.py:6 in work holds 1.0 models more" in printed


def test_what_a_child_does_is_not_the_programs(script):
    found = script("""
import os, numpy as np, flatrecord
model = {"x": np.ones(4 << 20, np.uint8)}
if os.fork() == 0:
    flatrecord.ParametersRecord({"x": np.ones(64 << 20, np.uint8)})
    os._exit(0)
os.wait()
flatrecord.ParametersRecord(model)
""")
    assert re.search(r"^model +4\.00 MiB.* at \S+script\.py:8, ", profile("--max-ratio", 1.05, found), re.MULTILINE)


def test_an_optimizers_state_and_data_are_no_model(script):
    found = script("""
import numpy as np, torch
torch.save({"images": torch.ones(16 << 20)}, "data.pt")
net = torch.nn.Linear(1024, 1024, bias=False)
optimizer = torch.optim.Adam(net.parameters())
net(torch.ones(1, 1024)).sum().backward()
optimizer.step()
torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, "x.pt")
torch.save(optimizer.state_dict(), "y.pt")
""")
    printed = profile(found, cwd=found.parent)
    assert re.search(r"^model +4\.00 MiB .*(Module\.state_dict|torch\.save) at script\.py:8, 1 array", printed, re.MULTILINE)


def test_memory_that_is_used_again_is_its_new_owners(script):
    found = script("""
import numpy as np
from flatrecord import ParametersRecord
def validate(): ParametersRecord(model, keep_input=True)
def backup(): return ParametersRecord(model, keep_input=True)
model = {str(i): np.ones(1 << 20, np.uint8) for i in range(32)}
validate()
kept = backup()
""")
    printed = profile(found)
    assert re.search(r"script\.py:5 in backup holds 1\.0 models more", printed) and "validate holds" not in printed


def test_many_lines_that_hold_a_little_each(script):
    lines = [f"m[{i}] = np.ones(1 << 18, np.uint8)" for i in range(200)] + [f"c[{i}] = m[{i}].copy()" for i in range(200)]
    printed = profile("--model-bytes", "50MiB", script("\n".join(["import numpy as np", "m, c = {}, {}", *lines])))
    assert "  other lines together: holds 1.0 models more" in printed and printed.count("script.py:") > 19


def test_a_line_that_grows_twice_is_beyond_with_what_came_last(script):
    found = script("""
import time, numpy as np
held = []
def grow(nbytes): held.append(np.ones(nbytes, np.uint8)); time.sleep(0.02)
grow(1 << 20)
model = np.ones(16 << 20, np.uint8); time.sleep(0.02)
grow(16 << 20)
""")
    printed = profile("--model-bytes", "16MiB", found)
    assert re.search(r"script\.py:4 in grow holds 1\.0 models more \(16\.00 MiB\)", printed), printed


def test_pools_still_find_what_is_watched(script, tmp_path):
    script("""
import multiprocessing, torch
torch.save({"x": torch.ones(3)}, "x.pt")
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map(torch.load, ["x.pt"])[0]["x"].sum())
""")
    assert "tensor(3.)" in profile("script.py", cwd=tmp_path)


def test_names_that_would_be_markup(tmp_path):
    for name in ("_x[red]y.py", "q[b] $\\frac{$.py", ":bug:.py"):
        (tmp_path / name).write_text(
            "import numpy as np\nfrom flatrecord import ParametersRecord\nfrom flatrecord.profile import phase\n"
            "with phase('bad $\\\\frac{ $'): ParametersRecord({'x': np.ones(1 << 20)}, True)\n"
        )
        printed = profile("--plot", "x.svg", name, cwd=tmp_path)
        assert f"\n{name}: " in printed and f" at {name}:4, 1 array" in printed and f"{name}:4" in (tmp_path / "x.svg").read_text()


def test_whoever_has_read_enough_changes_nothing(tmp_path):
    command = f"{sys.executable} -m flatrecord profile --max-ratio 1.05 --json {tmp_path}/x.json {EXAMPLES}/doubled.py"
    done = subprocess.run(["bash", "-c", command + " | true; echo ${PIPESTATUS[0]}"], capture_output=True, text=True, timeout=60)
    assert done.stdout == "3\n" and json.loads((tmp_path / "x.json").read_text())


@pytest.mark.parametrize("option, name", [("--json", "x.json"), ("--plot", "x.png"), ("--html", "x.html")])
def test_a_file_that_cannot_be_written_does_not_take_the_report_along(script, tmp_path, option, name):
    (tmp_path / name).symlink_to("/dev/full")
    found = script("import numpy as np\nx = np.ones(6 << 20, np.uint8)\n")
    command = [sys.executable, "-m", "flatrecord", "profile", "--model-bytes", "3MiB", option, name, str(found)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert re.search(r"^peak +6\.\d\d MiB +2\.0 models", done.stdout, re.MULTILINE) and f": {name}" not in done.stdout
    assert done.returncode == 1 and done.stderr.startswith("flatrecord: ") and "No space left on device" in done.stderr, done.stderr


def test_modules_of_the_working_directory_are_not_in_the_way(script, tmp_path):
    found = script("import json\nprint(json.dumps([1]))\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("json", "memray", "numpy", "types"):
        (elsewhere / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    command = [str(Path(sys.executable).parent / "flatrecord"), "profile", str(found)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=elsewhere)
    assert done.returncode == 0 and done.stdout.startswith("[1]\n"), done.stderr


def test_it_is_no_tracker_within_another(script):
    found = script("import sys, memray\nwith memray.Tracker(sys.argv[1]):\n    pass\n")
    assert "No more than one Tracker instance" in profile(found, found.with_suffix(".bin"), status=1)


@pytest.mark.parametrize(
    "arguments, status, reason",
    [
        (["no-such.py"], 1, "there is no script no-such.py"),
        (["--plot", "x.gif", "x.py"], 2, "must end in one of .png"),
        (["--json", "no/such/x.json", "x.py"], 2, "there is no folder no/such"),
        (["--html", ".", "x.py"], 2, "is a folder"),
        (["--model-bytes", "3 apples", "x.py"], 2, "must be a size above 0"),
        (["--model-bytes", "0", "x.py"], 2, "must be a size above 0"),
        (["--max-ratio", "0", "x.py"], 2, "must be a number above 0"),
        (["--max-ratio", "nan", "x.py"], 2, "must be a number above 0"),
        ([], 2, "the following arguments are required: SCRIPT"),
    ],
)
def test_it_refuses(arguments, status, reason):
    assert reason in profile(*arguments, status=status)


def test_it_says_what_is_missing(script, tmp_path):
    (tmp_path / "blocked.py").write_text(
        "import sys\nfrom importlib import util\nfind, hidden = util.find_spec, sys.argv.pop(1)\n"
        "util.find_spec = lambda name, *rest: None if name == hidden else find(name, *rest)\n"
        "from flatrecord.cli import main\nsys.exit(main())\n"
    )
    found = script("pass\n")
    for hidden, options in (("memray", []), ("matplotlib", ["--plot", "x.png"])):
        command = [sys.executable, "blocked.py", hidden, "profile", *options, str(found)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == 1 and f"needs {hidden}: pip install 'flatrecord[profile]'" in done.stderr
