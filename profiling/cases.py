"""The cases of the demo, each run in a process of its own: ``python -m profiling.cases CASE ...``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from flatrecord import ParametersRecord
from flatrecord.profile.resident import forget_peak, status

from .models import LLAMAS, real_weights
from .process import Child

TILE = np.random.default_rng(20).integers(0, 256, 1 << 20, np.uint8)


def fill(array: np.ndarray, entry: int) -> None:
    """Fill an array with bytes that differ from entry to entry."""
    raw, tile = array.reshape(-1).view(np.uint8), np.roll(TILE, entry)
    for start in range(0, raw.size, tile.size):
        piece = raw[start : start + tile.size]
        piece[:] = tile[: piece.size]


def is_filled(array: np.ndarray, entry: int) -> bool:
    """Whether every bit of an array is what `fill` wrote."""
    raw, tile = array.reshape(-1).view(np.uint8), np.roll(TILE, entry)
    return all(np.array_equal(raw[start : start + tile.size], tile[: raw.size - start]) for start in range(0, raw.size, tile.size))


def through_a_record(child: Child, model: dict[str, np.ndarray], keep_input: bool, interpreter: int) -> list[np.ndarray]:
    """Put a model into a record and take the arrays out again; reports peak and seconds."""
    forget_peak()
    child.phase("dict → record")
    began = time.perf_counter()
    record = ParametersRecord(model, keep_input=keep_input)
    child.phase("record → arrays")
    arrays = record.to_numpy_ndarrays(keep_input=keep_input)
    report(child, arrays, time.perf_counter() - began, interpreter)
    return arrays


def report(child: Child, arrays: Iterable[Any], seconds: float, interpreter: int) -> None:
    """Say what it took until `arrays`, which may be tensors, had come out of a record."""
    sizes = [array.nbytes for array in arrays]
    peak = status("VmHWM") - interpreter
    child.result(seconds=seconds, peak=peak, interpreter=interpreter, entries=len(sizes), nbytes=sum(sizes))


def real(child: Child) -> None:
    """A real model's weights: read, put into a record, taken out, every bit compared with the file."""
    from safetensors import safe_open

    def weights() -> dict[str, np.ndarray]:
        # Closing the file unmaps it, so that it does not count as memory.
        with safe_open(real_weights(), "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}

    interpreter = status("VmRSS")
    child.phase("make the model")
    model = weights()
    arrays = through_a_record(child, model, False, interpreter)
    child.phase("check every bit")
    again = weights().values()
    child.result(equal=sum(a.tobytes() == b.tobytes() for a, b in zip(arrays, again, strict=True)), left=len(model))
    child.phase("end")


def llama(child: Child, name: str, gib: str, keep: str) -> None:
    """A state_dict with a large model's names and shapes, filled with known bytes."""
    shape_of = LLAMAS[name].resized(float(gib) * 2**30) if float(gib) else LLAMAS[name]
    interpreter = status("VmRSS")
    child.phase("make the model")
    model, done = {}, 0
    for i, (key, shape) in enumerate(shape_of.shapes()):
        model[key] = np.empty(shape, np.float32)
        fill(model[key], i)
        done += model[key].nbytes
        child.progress(done, shape_of.nbytes)
    arrays = through_a_record(child, model, keep == "keep", interpreter)
    child.phase("check every bit")
    equal = done = 0
    for i, array in enumerate(arrays):
        equal += is_filled(array, i)
        done += array.nbytes
        child.progress(done, shape_of.nbytes)
    child.result(equal=equal, left=len(model))
    child.phase("end")


def state_dict(child: Child, name: str, gib: str) -> None:
    """The same as a state_dict of tensors, in bfloat16."""
    from .state_dict_case import state_dict_case

    state_dict_case(child, name, gib)


def compare(child: Child, *arguments: str) -> None:
    """A contender of the program of that name."""
    from . import compare_case

    compare_case.compare(child, *arguments)


def before(child: Child, *arguments: str) -> None:
    """What a contender needs to find."""
    from . import compare_case

    compare_case.before(child, *arguments)


def limits(child: Child, *arguments: str) -> None:
    """What the machine can do at best."""
    from .limits import limits_case

    limits_case(child, *arguments)


def speed(child: Child, section: str, *arguments: str) -> None:
    """A section of the program of that name."""
    from . import speed_case

    getattr(speed_case, section)(child, *arguments)


CASES: dict[str, Callable[..., None]] = {
    "before": before,
    "compare": compare,
    "limits": limits,
    "llama": llama,
    "real": real,
    "speed": speed,
    "state_dict": state_dict,
}

if __name__ == "__main__":
    CASES[sys.argv[1]](Child(), *sys.argv[2:])
