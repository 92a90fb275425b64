from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Buffer, disjoint_base

from ..safetensors.streams import Writable
from . import buffer as _core_buffer

@disjoint_base
class Array:
    @overload
    def __init__(
        self,
        dtype: NDArray[Any] | Tensor,
        shape: None = None,
        stype: None = None,
        data: None = None,
        *,
        ndarray: None = None,
        copy: bool | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        dtype: None = None,
        shape: None = None,
        stype: None = None,
        data: None = None,
        *,
        ndarray: NDArray[Any],
        copy: bool | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        dtype: str,
        shape: Sequence[int],
        stype: str,
        data: Buffer,
        *,
        ndarray: None = None,
        copy: bool | None = None,
    ) -> None: ...
    @classmethod
    def from_numpy_ndarray(cls, ndarray: NDArray[Any], *, copy: bool | None = None) -> Self: ...
    @classmethod
    def from_torch_tensor(cls, tensor: Tensor, *, copy: bool | None = None) -> Self: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> list[int] | tuple[int, ...]: ...
    @property
    def stype(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def ownership(self) -> Literal["taken", "snapshot", "borrowed", "shared"]: ...
    def segments(self) -> tuple[memoryview, memoryview]: ...
    def chunks(self, size: int = 5242880) -> Iterator[memoryview]: ...
    def write_to(self, file: Writable) -> int: ...
    def numpy(self, copy: bool | None = None) -> NDArray[Any]: ...
    def torch(self, copy: bool | None = None) -> Tensor: ...
    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> NDArray[Any]: ...
    def __dlpack__(self, **kwargs: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # object says that all have one
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: Any) -> Self: ...

def array_from_numpy(ndarray: NDArray[Any], *, copy: bool | None = None) -> Array: ...
def _rebuild(
    cls: type[Array],
    dtype: str,
    shape: Sequence[int],
    listed: bool,
    stype: str,
    preamble: bytes,
    payload: _core_buffer.Buffer,
) -> Array: ...
