"""The arrays that are sent, and what a client makes of them."""

import ml_dtypes
import numpy as np
from flwr.app import ArrayRecord


def model(mib: int, small: int, with_ml_dtypes: bool) -> dict[str, np.ndarray]:
    """Arrays of known bits: large ones, all alike, tiny, of every kind of dtype."""
    rng = np.random.default_rng(0)
    arrays = {f"layer{i}.weight": rng.standard_normal(mib << 16, np.float32).reshape(2, -1) for i in range(4)}
    arrays |= {f"layer{i}.bias": np.zeros(64, np.float32) for i in range(4)}
    arrays |= {f"small{i}": np.full(64, i, np.float32) for i in range(small)}
    arrays |= {"fortran": np.asfortranarray(arrays["layer0.weight"][:, :3]), "steps": np.array(7), "none": np.zeros((0, 2))}
    arrays |= {"half": np.ones(5, np.float16), "größe": np.arange(3, dtype=">i4")}
    if with_ml_dtypes:
        arrays |= {"bfloat16": np.ones(9, ml_dtypes.bfloat16), "float8": np.ones(9, ml_dtypes.float8_e4m3fn)}
    return arrays


def as_sent(record: ArrayRecord) -> dict[str, np.ndarray]:
    """The arrays of a record, of the dtypes that they had where they came from."""
    return {key: of_name(array.numpy(), array.dtype) for key, array in record.items()}


def of_name(array: np.ndarray, name: str) -> np.ndarray:
    """Stock Flower shows the dtypes of ml_dtypes as void."""
    return array.view(getattr(ml_dtypes, name)) if array.dtype.kind == "V" else array


def trained(array: np.ndarray) -> np.ndarray:
    """What one round makes of an array."""
    return np.asarray(array + np.ones((), array.dtype), array.dtype)


def kind(record: ArrayRecord) -> str:
    """Whose record this is: ``stock`` or ``flat``."""
    kinds = {"flat" if type(found).__module__.startswith("flatrecord") else "stock" for found in (record, *record.values())}
    assert len(kinds) == 1, kinds
    return kinds.pop()
