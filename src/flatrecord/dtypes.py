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

# What a safetensors file says, and what NumPy or ml_dtypes call it. Its F4 and F6 types put more than one element into
# a byte, which none of NumPy's do. https://github.com/huggingface/safetensors, the `Dtype` of release 0.8.
SAFETENSORS = {
    "BOOL": "bool",
    **{f"{letter}{bits}": f"{kind}{bits}" for letter, kind in (("U", "uint"), ("I", "int")) for bits in (8, 16, 32, 64)},
    **{"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16", "C64": "complex64"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E8M0": "float8_e8m0fnu"},
    **{"F8_E5M2": "float8_e5m2", "F8_E5M2FNUZ": "float8_e5m2fnuz"},
}


def numpy_dtype(name: str) -> np.dtype | None:
    """The dtype of that name in NumPy or ml_dtypes; None where the installed release has none."""
    scalar = getattr(ml_dtypes, name, None) or getattr(np, name, None)
    return None if scalar is None else np.dtype(scalar)
