"""A record of named arrays whose peak memory stays flat.

The public names are Flower's: `ParametersRecord`, `ArrayRecord`, `Array` and `array_from_numpy`.
"""

from ._core.array import Array, array_from_numpy
from ._core.foreign import register
from ._core.record import ArrayRecord, ParametersRecord

register("torch", "Tensor", "flatrecord.torch")
register("safetensors", None, "flatrecord.safetensors")

__version__ = "0.1.0"

__all__ = ["Array", "ArrayRecord", "ParametersRecord", "array_from_numpy"]
