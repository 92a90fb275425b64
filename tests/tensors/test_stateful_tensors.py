"""Random sequences of operations on records of tensors and ndarrays."""

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from aliasing import is_tensor, shown, span
from hypothesis import strategies as st
from hypothesis.stateful import rule
from modelled import Item, one_of
from recipes import KINDS, NOTHING_KEPT, Expected, Recipe, elements, expected, scribble
from stateful import COPIES, NUMBERS, Records, bounded
from tensors.values import DTYPES, LAYOUTS

from flatrecord.dtypes import TORCH, numpy_dtype

TENSORS = [
    *["tensor"] * 4, "same tensor", *["part of a tensor"] * 2, *["held tensor"] * 2, "parameter", "ndarray's", "converted",
]  # fmt: skip


def part_of(tensor: torch.Tensor, number: int) -> torch.Tensor:
    """A view on some of a tensor's storage."""
    tensor = tensor.detach()
    choices = [tensor, tensor.t() if tensor.ndim == 2 else tensor, tensor[...]]
    if tensor.ndim and len(tensor):
        choices += [tensor[: (len(tensor) + 1) // 2], tensor[len(tensor) // 3 :], tensor[::2], tensor.chunk(2)[-1]]
    if tensor.is_contiguous():
        choices += [tensor.view(-1), tensor.view(-1)[: (tensor.numel() + 1) // 2]]
    return choices[number % len(choices)]


def kept(tensor: torch.Tensor, keep: str) -> Any:
    """Something by which to reach the storage of `tensor`; None if nothing is wanted."""
    return {
        "array": lambda: tensor,
        "view": lambda: tensor.detach(),
        "weak reference": lambda: weakref.ref(tensor),
        "memoryview": lambda: tensor[...],
        "base": lambda: tensor if tensor._base is None else tensor._base,
    }.get(keep, lambda: None)()


def expected_of(tensor: torch.Tensor) -> tuple[Expected, bool]:
    """What an Array of `tensor` has to be, and whether it needs no copy."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    array = shown(plain)
    dtype = numpy_dtype(str(tensor.dtype).removeprefix("torch."))
    array = array.view(dtype) if array.size else np.empty(array.shape, dtype)
    flat = array.flags.c_contiguous or array.flags.f_contiguous
    return expected(array), flat and not (tensor.is_conj() or tensor.is_neg())


class Tensors(Records):
    """Records of tensors, too."""

    kinds = TENSORS * 2 + KINDS

    def tensor(self, recipe: Recipe, earlier: list[Any], items: list[Item]) -> tuple[torch.Tensor, int | None]:
        number, family = recipe.number, self.family()
        usable = [i for i, thing in enumerate(earlier) if is_tensor(thing)]
        if recipe.kind in ("same tensor", "part of a tensor") and usable:
            return one_of(usable, number, earlier, items, part_of if recipe.kind == "part of a tensor" else None)
        if recipe.kind == "held tensor":
            held = [handle for handle in self.handles if is_tensor(handle.thing)]
            if held:
                handle = held[number % len(held)]
                if recipe.keep == NOTHING_KEPT:
                    self.handles.remove(handle)
                return handle.thing, handle.family
        if recipe.kind == "ndarray's":
            held = [handle for handle in self.handles if handle.writes and can_be_tensor(handle.thing)]
            if held:
                handle = held[number % len(held)]
                if recipe.keep == NOTHING_KEPT:
                    self.handles.remove(handle)
                return torch.from_numpy(handle.thing), handle.family
        dtype = DTYPES[recipe.dtype % len(DTYPES)]
        if recipe.kind == "converted":
            dtype = torch.complex64
        if recipe.kind == "parameter" and not dtype.is_floating_point:
            dtype = torch.float32
        tensor = LAYOUTS[list(LAYOUTS)[number % len(LAYOUTS)]](dtype)
        scribble(tensor, number)
        if recipe.kind == "converted":
            tensor = tensor.conj() if number % 2 else tensor.conj().imag
        if recipe.kind == "parameter":
            tensor = torch.nn.Parameter(tensor)
        thing = kept(tensor, recipe.keep)
        if thing is not None:
            self.hold(thing, family)
        return tensor, family

    def value(self, recipe: Recipe, earlier: list[Any], items: list[Item]) -> tuple[Any, Item]:
        if recipe.kind not in TENSORS:
            return super().value(recipe, earlier, items)
        tensor, family = self.tensor(recipe, earlier, items)
        wanted, flat = expected_of(tensor)
        wanted = replace(wanted, kind=tensor.untyped_storage()._cdata)
        return tensor, Item(wanted, family, False, flat, span(tensor))

    def expected_of(self, thing: Any) -> Expected:
        return expected_of(thing)[0] if is_tensor(thing) else super().expected_of(thing)

    def check_out(self, thing: Any, wanted: Expected) -> None:
        if not is_tensor(thing):
            super().check_out(thing, wanted)
            return
        assert shown(thing).tobytes() == elements(wanted) and not thing.requires_grad
        assert str(thing.dtype) == f"torch.{wanted.dtype}" and tuple(thing.shape) == wanted.shape

    @rule(number=NUMBERS, keep_input=st.booleans(), copy=COPIES, keep=st.integers(0, 63))
    def come_out_as_tensors(self, number: int, keep_input: bool, copy: bool | None, keep: int) -> None:
        def read_out(record: Any, keep_input: bool, copy: bool | None) -> dict[str, Any]:
            return record.to_torch_state_dict(keep_input=keep_input, copy=copy)

        self.bring_out(lambda wanted: wanted.readable and wanted.dtype in TORCH, read_out, number, keep_input, copy, keep)


def can_be_tensor(array: Any) -> bool:
    """Whether torch can share the memory of something."""
    if not isinstance(array, np.ndarray) or str(array.dtype) not in TORCH:
        return False
    # Of two C types of the same size, such as long and long long, torch knows one.
    return array.dtype.num == np.dtype(str(array.dtype)).num and array.dtype.isbuiltin == 1 and min(array.strides, default=0) >= 0


TestTensors = Tensors.TestCase
TestTensors.settings = bounded(300)
