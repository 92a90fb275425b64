"""The dtypes, layouts and models that everything with tensors has to hold for."""

import torch
from torch import nn

from flatrecord.dtypes import TORCH

DTYPES = [getattr(torch, name) for name in TORCH]
# What torch has beside these: quantized, bits without a meaning, integers of odd widths, and pairs in a byte.
OTHERS = {
    value
    for name, value in vars(torch).items()
    if isinstance(value, torch.dtype) and value not in DTYPES
}  # fmt: skip


def filled(shape, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of `dtype` whose bytes differ from element to element."""
    count = torch.Size(shape).numel()
    size = torch.empty(0, dtype=torch.uint8).view(dtype).element_size()
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count * size,), dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


def bits(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor's elements in C order, conjugation and sign applied."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    # As integers, because torch warns of copying complex32.
    alike = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}[tensor.element_size()]
    return tensor.view(alike).contiguous().numpy().tobytes()


def are_tied(*tensors: torch.Tensor) -> bool:
    """Whether torch itself sees that the tensors share their memory."""
    return len({tensor.untyped_storage()._cdata for tensor in tensors}) == 1


def model() -> nn.Module:
    """A small model with parameters, buffers and a number."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


DEVICES = ["cpu"] + ([str(torch.accelerator.current_accelerator())] if torch.accelerator.is_available() else [])

LAYOUTS = {
    "contiguous": lambda dtype: filled((3, 4), dtype),
    "t": lambda dtype: filled((3, 4), dtype).t(),
    "zero_dimensional": lambda dtype: filled((), dtype),
    "one_element": lambda dtype: filled((1, 1, 1), dtype),
    "empty": lambda dtype: filled((0, 3), dtype),
    "slice": lambda dtype: filled((9,), dtype)[2:],
    "small_slice": lambda dtype: filled((9, 5), dtype)[2],
    "strided": lambda dtype: filled((4, 6), dtype)[::2, ::3],
    "column": lambda dtype: filled((4, 5), dtype)[:, 2],
    "permuted": lambda dtype: filled((2, 3, 4), dtype).permute(2, 0, 1),
    "reversed_axes": lambda dtype: filled((2, 3, 4), dtype).permute(2, 1, 0),
    "channels_last": lambda dtype: filled((2, 4, 5, 3), dtype).permute(0, 3, 1, 2),
    "expanded": lambda dtype: filled((1, 3), dtype).expand(4, 3),
    "as_strided": lambda dtype: filled((10,), dtype).as_strided((3, 4), (2, 1)),
}
