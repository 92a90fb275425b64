"""The Flower app of ``python -m profiling flower``: a model that lives as long as the process, with NumPy alone."""

import os
import struct
import time
from typing import Any

import ml_dtypes
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

MODEL: list[np.ndarray] = []
PIECE = 1 << 18  # elements that are trained at a time, so that training takes no memory

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round, with stock Flower as its quickstarts have it, or with flat records."""
    flat = context.run_config["records"] == "flat"
    seen: dict[str, int | float | list[int] | list[float]] = {}  # as a MetricRecord has it
    look(seen, "received")
    record: Any = message.content["model"]  # of Flower's kind, or flat
    MODEL[:] = record.to_numpy_ndarrays(keep_input=False) if flat else map(typed, record.to_numpy_ndarrays())
    look(seen, "taken out")
    for array in MODEL:
        double(array.reshape(-1))
    look(seen, "trained")
    reply = ArrayRecord(MODEL, copy=False) if flat else ArrayRecord(MODEL)  # type: ignore[call-overload]  # which stock Flower does not know
    return Message(RecordDict({"model": reply, "seen": MetricRecord(seen)}), reply_to=message)


def typed(array: np.ndarray) -> np.ndarray:
    """Arrays of bfloat16 come out of a stock record as void."""
    return array.view(ml_dtypes.bfloat16) if array.dtype.kind == "V" else array


def double(elements: np.ndarray) -> None:
    """Every element changes, and none is rounded."""
    for start in range(0, elements.size, PIECE):
        piece = elements[start : start + PIECE]
        np.multiply(piece, piece.dtype.type(2), out=piece)


def look(seen: dict[str, int | float | list[int] | list[float]], step: str) -> None:
    """Note the time, the peak of this process so far, and what `counts.c` has counted, if it is there."""
    seen[f"{step}: time"] = time.monotonic()
    with open("/proc/self/status") as file:
        seen[f"{step}: peak"] = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))
    if path := os.environ.get("FLATRECORD_COUNTS"):
        with open(path, "rb") as file:
            seen[f"{step}: copied"], seen[f"{step}: hashed"] = struct.unpack("QQ", file.read())
