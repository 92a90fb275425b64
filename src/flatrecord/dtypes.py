"""What each library calls a dtype."""

from __future__ import annotations

import ml_dtypes
import numpy as np

# torch and NumPy, or where NumPy has none ml_dtypes, call each of these the same; Flower takes NumPy's names.
TORCH = (
    "bool",
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "complex32", "complex64", "complex128"),
    *("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)


def numpy_dtype(name: str) -> np.dtype | None:
    """The dtype of that name in NumPy or ml_dtypes; None where the installed release has none."""
    scalar = getattr(ml_dtypes, name, None) or getattr(np, name, None)
    return None if scalar is None else np.dtype(scalar)
