"""A client that hands its model over: 1.0 models. ``flatrecord profile --max-ratio 1.05 examples/profile/flat.py``."""

import numpy as np

from flatrecord import ArrayRecord
from flatrecord.profile import phase


def make_model() -> dict[str, np.ndarray]:
    return {f"layer{i}.weight": np.full((1024, 4096), i, np.float32) for i in range(16)}


def train(model: dict[str, np.ndarray]) -> None:
    for array in model.values():  # in a function, so that no variable is left that still holds the last one
        array += 1


with phase("make the model"):
    model = make_model()
with phase("train"):
    train(model)
record = ArrayRecord(model, keep_input=False)
with phase("send"), open("/dev/null", "wb", buffering=0) as network_card:
    for array in record.values():
        for chunk in array.chunks():
            network_card.write(chunk)
