"""What a user does first with an installed flatrecord: a gigabyte goes through a record. Needs nothing but the package.

Run by ``make wheel`` and by cibuildwheel, on each system and Python, where there is no compiler.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

before = set(sys.modules)
import flatrecord  # noqa: E402  (what it brings along is looked at)
from flatrecord import ParametersRecord  # noqa: E402

MIB = 1 << 20


def peak() -> int | None:
    """Bytes of memory that the process had at its peak; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


brought = (
    {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names - {"flatrecord", "numpy", "cython_runtime"}
)
assert not {name for name in brought if not name.startswith("_cython_")}, brought
where = Path(flatrecord.__file__).parent
assert "site-packages" in where.parts and not list(where.rglob("*.pyx")), where
compilers = [name for name in ("cc", "gcc", "c++", "clang", "cl", "cython") if shutil.which(name)]
assert not compilers or "CIBUILDWHEEL" in os.environ, compilers  # cibuildwheel's images have one on the PATH

base = peak()
model = {f"layer{i}.weight": np.full((4096, 1024), i, np.float32) for i in range(64)}  # 64 arrays of 16 MiB
addresses = [array.ctypes.data for array in model.values()]
record = ParametersRecord(model)
assert not model and {array.ownership for array in record.values()} == {"taken"}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.safetensors"
    assert record.save(path) == path.stat().st_size > 1 << 30
    mapped = ParametersRecord.load(path)
    assert mapped["layer63.weight"].numpy()[4095, 1023] == 63
    inspected = subprocess.run([sys.executable, "-m", "flatrecord", "inspect", path], check=True, capture_output=True, text=True).stdout
    assert "layer63.weight" in inspected
    del mapped  # Windows does not remove a file that is mapped
arrays = record.to_numpy_ndarrays(keep_input=False)
assert not record and [array.ctypes.data for array in arrays] == addresses
assert all(int(array.min()) == int(array.max()) == i for i, array in enumerate(arrays))
arrays[0] += 1
top = peak()
told = "peak not measured here" if base is None or top is None else f"peak {(top - base) / (1 << 30):.2f} times its size"
assert base is None or top is None or top - base < (1 << 30) + 96 * MIB, told
versions = f"flatrecord {flatrecord.__version__}, Python {sys.version.split()[0]}, NumPy {np.__version__}"
print(f"{versions}: 1 GiB through a record and a file, {told}")
