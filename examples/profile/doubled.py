"""A client that keeps a copy of its model: 2.0 models. ``flatrecord profile examples/profile/doubled.py``."""

import numpy as np

from flatrecord import ArrayRecord
from flatrecord.profile import phase


def make_model() -> dict[str, np.ndarray]:
    return {f"layer{i}.weight": np.full((1024, 4096), i, np.float32) for i in range(16)}


def best_so_far(model: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in model.items()}


def train(model: dict[str, np.ndarray]) -> None:
    for array in model.values():
        array += 1


with phase("make the model"):
    model = make_model()
with phase("train"):
    train(model)
best = best_so_far(model)
record = ArrayRecord(model, copy=False)
assert record.count_memory() == sum(array.nbytes for array in best.values())
