"""``flatrecord flower enable``, ``disable`` and ``status``, each in an environment of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from profiling.deployment import Environment

FILES = ["_flatrecord_flower.py", "flatrecord_flower.pth"]

WHOSE = """
import warnings
warnings.filterwarnings("error", message="flatrecord")
import {first}
import flwr.app, numpy as np
from flwr.common import ParametersRecord
from flwr.supercore.inflatable import inflatable_utils
from flwr.supernode.runtime import run_clientapp
from flwr.superlink.grid import http_grid
array = flwr.app.Array(np.arange(3.0))
records = flwr.app.ArrayRecord([np.zeros(2)]), flwr.app.ArrayRecord({{"x": array}}), flwr.app.ArrayRecord.from_numpy_ndarrays([np.zeros(2)])
found = [array, flwr.app.Array.from_numpy_ndarray(np.zeros(2)), ParametersRecord(), *records]
found += [value for record in records for value in record.values()]
kinds = [inflatable_utils.inflatable_class_registry[name] for name in ("Array", "ArrayRecord", "ArrayChunk")]
modules = {{type(value).__module__ for value in found}} | {{kind.__module__ for kind in kinds}}
modules |= {{run_clientapp.push_objects.__module__, http_grid.push_objects.__module__}}
assert all(isinstance(record, flwr.app.ArrayRecord) for record in records) and isinstance(array, flwr.app.Array)
class MyArray(flwr.app.Array):
    pass
class MyRecord(flwr.app.ArrayRecord):
    pass
mine, given = MyArray(np.ones(3)), [np.ones(3)]
assert type(mine) is MyArray and mine.dtype == "float64" and (mine.numpy() == 1).all()
for record in (MyRecord(given), MyRecord({{"0": mine}}), MyRecord(given, keep_input=False)):
    assert type(record) is MyRecord and (record["0"].numpy() == 1).all() and not type(record["0"]).__module__.startswith("flatrecord")
assert given == []
assert type(flwr.app.Array(np.zeros(1))) is type(array)
print(*sorted({{name.split(".")[0] for name in modules}}))
"""


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path / "environment", variables={"FLATRECORD_FLOWER": "1"})


def whose(environment: Environment, first: str = "flwr.app", **variables: str) -> str:
    """Whose classes and functions a process uses: ``flwr`` or ``flatrecord``."""
    return environment.run(environment.python, "-c", WHOSE.format(first=first), variables=variables).strip()


def command(environment: Environment, action: str) -> str:
    return environment.run(environment.scripts / "flatrecord", "flower", action)


def there(environment: Environment) -> list[str]:
    return sorted(path.name for path in environment.packages.rglob("*flatrecord_flower*"))


def test_enable_status_disable(environment):
    before = sorted(environment.packages.rglob("*"))
    assert "flatrecord flower: disabled" in command(environment, "status") and "Flower: 1.41.0" in command(environment, "status")
    assert whose(environment) == "flwr"
    said = command(environment, "enable").splitlines()
    # It says what it writes before it writes it.
    assert [line.split()[1] for line in said[:2]] == [str(environment.packages / name) for name in FILES]
    assert said[1].endswith("import _flatrecord_flower") and "enabled" in said[2]
    assert [name for name in there(environment) if not name.endswith(".pyc")] == FILES
    status = command(environment, "status")
    assert "flatrecord flower: enabled" in status and all(str(environment.packages / name) in status for name in FILES)
    assert whose(environment) == "flatrecord"
    assert whose(environment, FLATRECORD_FLOWER="0") == "flwr"
    command(environment, "enable")  # once more does no harm
    assert whose(environment) == "flatrecord"
    said = command(environment, "disable")
    assert all(f"removed {environment.packages / name}" in said for name in FILES) and "nothing of it is left" in said
    assert sorted(environment.packages.rglob("*")) == before
    assert "it was not enabled" in command(environment, "disable")
    assert whose(environment) == "flwr"


@pytest.mark.parametrize(
    "first",
    [
        "flatrecord.flower",
        "flwr.common",
        "flwr.supercore.inflatable.inflatable_utils",
        "flwr.supernode.cli",
        "flwr.serverapp.strategy",
        "flwr.simulation",
    ],
)
def test_whatever_is_imported_first(environment, first):
    command(environment, "enable")
    assert whose(environment, first) == "flatrecord"


def test_a_process_without_flower_imports_nothing_of_ours(environment):
    def modules(*options: str) -> set[str]:
        script = "import sys; print(*sorted(sys.modules))"
        return set(environment.run(environment.python, *options, "-c", script).split())

    before = modules()
    command(environment, "enable")
    assert modules() - before == {"_flatrecord_flower"}
    assert modules("-S") & {"_flatrecord_flower"} == set()


@pytest.mark.parametrize("release", ["1.35.0", "1.43.0", "2.0.0", "no version at all"])
def test_another_release_of_flower_is_left_as_it_is(environment, release):
    command(environment, "enable")
    # A distribution that is found first, with another version.
    other = environment.packages / "flwr-0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text(f"Metadata-Version: 2.1\nName: flwr\nVersion: {release}\n")
    script = "import flwr.app, numpy as np; from flwr.supernode.runtime import run_clientapp; print(type(flwr.app.Array(np.zeros(1))))"
    done = subprocess.run([environment.python, "-c", script], env=environment.variables(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "<class 'flwr.app.message.array.Array'>\n"
    assert done.stderr.count(f"flatrecord leaves Flower as it is: flatrecord.flower is written for flwr 1.36 to 1.42, found {release}") == 1
    assert f"Flower: {release}, not one of flwr 1.36 to 1.42: it is left as it is" in command(environment, "status")
    command(environment, "disable")
    with pytest.raises(RuntimeError, match="found " + release):
        command(environment, "enable")
    assert there(environment) == []
    done = subprocess.run(
        [environment.python, "-c", "import flatrecord.flower"], env=environment.variables(), capture_output=True, text=True
    )
    assert "ImportError: flatrecord.flower is written for flwr 1.36 to 1.42, found" in done.stderr


def test_without_flower(tmp_path):
    environment = Environment(tmp_path / "environment")
    (environment.packages / "parent.pth").unlink()
    (environment.packages / "flatrecord").symlink_to(Path(sys.modules["flatrecord"].__file__).parent)
    for name in ("numpy", "numpy.libs", "ml_dtypes"):
        source = Path(sys.modules["numpy"].__file__).parents[1] / name
        if source.exists():
            (environment.packages / name).symlink_to(source)
    with pytest.raises(RuntimeError, match=r"needs Flower: pip install 'flatrecord\[flower\]'"):
        command(environment, "enable")
    assert "Flower: not installed" in command(environment, "status")
    with pytest.raises(RuntimeError, match=r"ImportError: flatrecord.flower needs Flower: pip install 'flatrecord\[flower\]'"):
        environment.run(environment.python, "-c", "import flatrecord.flower")


def test_the_hook_outlives_flatrecord(environment):
    """As after ``pip uninstall flatrecord``: Flower works, and the warning says what is left."""
    command(environment, "enable")
    (environment.packages / "0.pth").write_text("import sys; sys.modules['flatrecord'] = None\n")
    script = "import flwr.app, numpy as np; print(type(flwr.app.Array(np.zeros(1))))"
    done = subprocess.run([environment.python, "-c", script], env=environment.variables(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "<class 'flwr.app.message.array.Array'>\n"
    assert done.stderr.count("flatrecord leaves Flower as it is") == 1 and "_flatrecord_flower.py" in done.stderr


def test_other_finders(environment):
    """One that has no find_spec, as was allowed once; one that asks all others, as ours does."""
    command(environment, "enable")
    script = """
import sys
class Old:
    def find_module(self, name, path=None):
        return None
class Asking:
    def find_spec(self, name, path=None, target=None):
        others = [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]
        return next(filter(None, (f.find_spec(name, path, target) for f in others)), None)
sys.meta_path.insert(0, Asking())
sys.meta_path.append(Old())
""" + WHOSE.format(first="flwr.app")
    assert environment.run(environment.python, "-c", script).strip() == "flatrecord"


def test_an_import_alone_reaches_what_is_imported_later(environment):
    script = """
import flatrecord.flower, flwr.app, numpy as np
from flwr.supernode.runtime import run_clientapp
from flwr.superlink.grid import http_grid
print(run_clientapp.push_objects.__module__, http_grid.pull_objects.__module__, type(flwr.app.Array(np.zeros(1))).__module__)
"""
    found = environment.run(environment.python, "-c", script).split()
    assert found == ["flatrecord.flower.pushing", "flatrecord.flower.pulling", "flwr.app.message.array"]


APP_UNCHANGED = """
import flwr.app, numpy as np, torch
from flwr.common import ndarrays_to_parameters
from flwr.compat.common.recorddict_compat import parameters_to_arrayrecord
from flwr.supercore.differential_privacy import add_gaussian_noise_inplace
record = flwr.app.ArrayRecord([np.ones(3)])
assert type(record).__module__.startswith("flatrecord")
arrays = record.to_numpy_ndarrays()
arrays[0] += 1
add_gaussian_noise_inplace(arrays, 0.1)
assert (record["0"].numpy() == 1).all() and (record.to_numpy_ndarrays()[0] == 1).all()
model = torch.nn.Linear(3, 3)
state_dict = flwr.app.ArrayRecord(model.state_dict()).to_torch_state_dict()
state_dict["bias"].add_(1)
model.load_state_dict(state_dict, assign=True)
torch.func.functional_call(model, state_dict, torch.ones(3)).sum()
model(torch.ones(3)).sum().backward()
old = parameters_to_arrayrecord(ndarrays_to_parameters([np.arange(4.0)]), keep_input=True)
assert (old.to_numpy_ndarrays()[0] == np.arange(4.0)).all() and (old.to_numpy_ndarrays(keep_input=False)[0] == np.arange(4.0)).all()
"""


def test_an_app_that_knows_nothing_of_it(environment):
    """What Flower's classes allow is allowed: writing to what comes out, training on it, Flower's own compatibility layer."""
    command(environment, "enable")
    environment.run(environment.python, "-c", APP_UNCHANGED)
