"""The adapter for torch: how tensors become Arrays, and Arrays tensors.

Nothing here is called by users. The core imports this module when it meets the first tensor, and
`ParametersRecord.from_torch_state_dict`, `to_torch_state_dict`, `Array.from_torch_tensor` and
`Array.torch` do. What each function is for says `flatrecord._core.foreign`.

Written and tested with torch 2.13 on the CPU.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np
import torch

from ._core.foreign import Loan, Memory
from .dtypes import TORCH, numpy_dtype

_NUMPY = {getattr(torch, name): dtype for name in TORCH if hasattr(torch, name) and (dtype := numpy_dtype(name)) is not None}
_TORCH = {dtype: ours for ours, dtype in _NUMPY.items()}
_T = TypeVar("_T")

# References to a tensor that torch counts below Python. Where it does not tell, all tensors count as held.
_use_count: Callable[[torch.Tensor], int] = getattr(torch.Tensor, "_use_count", lambda tensor: sys.maxsize)

# Memory that we have lent to torch, by the address of the StorageImpl that shows it.
_loans: weakref.WeakValueDictionary[int, Loan] = weakref.WeakValueDictionary()


# ------------------------------------------------------------------------------- who holds a storage


_WORDS = ctypes.c_size_t * 5  # kept here, as ctypes would make it anew after each collection


class _Inside(NamedTuple):
    """What a c10::StorageImpl begins with."""

    users: int  # its reference count
    weak_users: int  # what else can become a reference, and one more
    deleter: int | None  # what frees its memory, where that is a block of its own


def _inside(storage: torch.UntypedStorage) -> _Inside:
    """Read the beginning of the StorageImpl: virtual table, both counts, then its c10::DataPtr.

    torch's own allocator has the block's address as the deleter's argument. Memory that torch borrows
    (``from_numpy``, DLPack, mapped files) has something else there, to let go of its owner.
    """
    _, counts, data, deleter, context = _WORDS.from_address(storage._cdata)
    return _Inside(counts & 0xFFFFFFFF, counts >> 32, deleter if data == context == storage.data_ptr() else None)


class StorageMemory(Memory):
    """The memory of an untyped storage, which is its `owner`."""

    __slots__ = ()

    @property
    def key(self) -> int:
        """The address of the StorageImpl, by which `_loans` knows it."""
        key: int = self.owner._cdata
        return key

    def users(self) -> int:
        """How many others hold the storage: tensors, and whoever has its Python object."""
        users = torch._C._storage_Use_Count(self.key) - 1
        return users + self.references() - (_MEASURED.shared if users else _MEASURED.alone)

    def is_only_way(self) -> bool:
        """Whether the memory can be reached through this storage alone."""
        if self.elsewhere:
            return True
        lent = self.key in _loans  # the Loan is asked itself
        if _MEASURED.inside is None:
            # What torch borrows is not resizable. What is its own may be neither, and is then copied.
            return lent or (self.owner.resizable() and not self.owner.is_shared())
        inside = _inside(self.owner)
        own = inside.deleter == _MEASURED.inside.deleter
        return (lent or own) and inside.weak_users == _MEASURED.inside.weak_users

    def stay(self) -> None:
        """See to it that the memory stays where it is."""
        # As with any ndarray that torch makes itself, the storage is not resizable from then on.
        torch.empty(0, dtype=torch.uint8, device="cpu").set_(self.owner).numpy()

    def references(self) -> int:
        """The references to the Python object of the storage, weak ones too, as they can become strong."""
        return sys.getrefcount(self.owner) + weakref.getweakrefcount(self.owner)

    def beneath(self) -> Loan | None:
        """Our own memory, where the storage was made on it."""
        return _loans.get(self.key)


def _memory_of(storage: torch.UntypedStorage) -> StorageMemory:
    if storage.device.type != "cpu":
        return StorageMemory(storage, 0, 0, True)
    return StorageMemory(storage, storage.data_ptr(), storage.nbytes(), False)


class _Calibration(NamedTuple):
    """What depends on torch's release, and is therefore measured where nobody else has the objects."""

    inside: _Inside | None  # of a storage with memory of torch's own; None where it cannot be read
    shared: int  # what StorageMemory.references gives while a tensor has the storage
    alone: int  # what it gives without a tensor
    base: int  # references to the base of a view, a local variable included
    viewed: int  # how many more references a tensor has once there is a view on it


def _calibrate() -> _Calibration:
    borrowed = torch.from_numpy(np.zeros(3, np.float32)).untyped_storage()
    tensor = torch.empty(3, dtype=torch.float32, device="cpu")
    memory = _memory_of(tensor.untyped_storage())
    inside = _inside(memory.owner)
    readable = inside.users == 2 and inside.deleter is not None and _inside(borrowed).deleter is None
    shared = memory.references()
    before = sys.getrefcount(tensor)
    view = tensor.view(3)
    viewed = sys.getrefcount(tensor) - before
    del tensor, view
    alone = memory.references()
    view = torch.empty(3, dtype=torch.float32, device="cpu").view(3)
    base = view._base
    return _Calibration(inside if readable else None, shared, alone, sys.getrefcount(base), viewed)


with torch.inference_mode(False):  # inside it, views have no base
    _MEASURED = _calibrate()


# --------------------------------------------------------------------------------------- tensors in


def _plainly(function: Callable[..., _T]) -> Callable[..., _T]:
    """Let subclasses of Tensor be what they are below, whatever they make of torch's functions."""

    @wraps(function)
    def call(*arguments: Any) -> _T:
        with torch._C.DisableTorchFunctionSubclass():
            return function(*arguments)

    return call


@_plainly
def check(tensor: torch.Tensor, copy: bool | None) -> None:
    """Raise if `tensor` cannot become an Array.

    Raises
    ------
    TypeError
        If it has no dense memory, or a dtype that NumPy and ml_dtypes have not.
    ValueError
        If its storage has been freed or made too small for it (``untyped_storage().resize_(0)``, as FSDP
        does), or `copy` is False and it has to be copied.
    """
    refused = _reason(tensor)
    if refused is not None:
        raise TypeError(f"a tensor must be dense, {refused}")
    if tensor.dtype not in _NUMPY:
        release = f"NumPy {np.__version__} or ml_dtypes {ml_dtypes.__version__}"
        raise TypeError(f"{tensor.dtype} has no counterpart in {release}: pass tensor.view(torch.uint8)")
    _check_extent(tensor)
    if copy is False:
        what = (
            f"is on device {tensor.device}" if not tensor.is_cpu
            else "is a conjugate view" if tensor.is_conj()
            else "is a negative view" if tensor.is_neg()
            else "is not contiguous" if not (tensor.is_contiguous() or tensor.permute(_reversed(tensor)).is_contiguous())
            else None
        )  # fmt: skip
        if what is not None:
            raise ValueError(f"copy=False, but the tensor {what} and has to be copied")


def _reason(tensor: torch.Tensor) -> str | None:
    """Why `tensor` has no dense memory; None if it has."""
    kind = type(tensor)
    if kind.__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl:
        hint = ": pass tensor.full_tensor()" if hasattr(tensor, "full_tensor") else ""
        return f"got a {kind.__module__}.{kind.__qualname__}, which keeps its values elsewhere{hint}"
    if torch.nn.parameter.is_lazy(tensor):
        return "got an uninitialized parameter: run the model once first"
    if tensor.is_nested:
        return f"got a nested one (layout {tensor.layout}): pass its tensors one by one"
    if tensor.layout is not torch.strided:
        return f"got layout {tensor.layout}: pass tensor.to_dense()"
    if tensor.is_quantized:
        return f"got a quantized one ({tensor.dtype}, layout {tensor.layout}): pass tensor.dequantize() or tensor.int_repr()"
    if tensor.is_meta:
        return f"got one on the meta device, which has no values (layout {tensor.layout})"
    try:
        storage = tensor.untyped_storage()
    except NotImplementedError as error:  # not any RuntimeError: torch has these where there is no memory, too
        return f"and this one has no memory of its own: {error}"
    try:
        storage.data_ptr()
    except RuntimeError as error:
        return f"and this one has no memory of its own: {error}"
    return None


def _check_extent(tensor: torch.Tensor) -> None:
    """Raise a ValueError if the storage of `tensor` has been made too small for it."""
    if tensor.numel() == 0:
        return
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (tensor.storage_offset() + reach + 1) * tensor.element_size()
    found = tensor.untyped_storage().nbytes()
    if needed > found:
        raise ValueError(f"the tensor's storage was resized to {found} bytes, and the tensor needs {needed}")


def _reversed(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(reversed(range(tensor.ndim)))


@_plainly
def memory_of(tensor: torch.Tensor) -> StorageMemory:
    """The storage of `tensor`, which counts as one of its users."""
    return _memory_of(tensor.untyped_storage())


@_plainly
def tenants(tensors: Sequence[torch.Tensor]) -> tuple[int, list[int]] | None:
    """How many users of their storage some tensors are, together with the bases that only they hold.

    A view holds the tensor it was made from, its base, even where nobody else does.

    Returns
    -------
    None
        If an autograd graph, another view or a C++ object holds one of them too, or its class can bring
        it back (``__del__``).
    (int, list of int)
        The number, and for each tensor how many Python references torch itself has to it.
    """
    views = Counter(id(tensor._base) for tensor in tensors if tensor._base is not None)
    bases = {id(tensor._base): tensor._base for tensor in tensors if tensor._base is not None}
    count, references = len(tensors), []
    for tensor in tensors:
        bases.pop(id(tensor), None)
        if _use_count(tensor) != 1 + views[id(tensor)] or hasattr(type(tensor), "__del__"):
            return None
        references.append(_MEASURED.viewed if views[id(tensor)] else 0)
    while bases:
        _, base = bases.popitem()
        if sys.getrefcount(base) != _MEASURED.base or weakref.getweakrefcount(base):
            return None
        if _use_count(base) != 1 + views[id(base)]:
            return None
        count += base.untyped_storage()._cdata == tensors[0].untyped_storage()._cdata
    return count, references


@_plainly
def converts(tensor: torch.Tensor) -> bool:
    """Whether the elements are on another device, or in memory only up to conjugation or sign."""
    return not tensor.is_cpu or tensor.is_conj() or tensor.is_neg()


@_plainly
def describe(tensor: torch.Tensor) -> tuple[np.dtype, tuple[int, ...]]:
    """Dtype and shape of what `expose` gives."""
    return _NUMPY[tensor.dtype], tuple(tensor.shape)


@_plainly
def expose(tensor: torch.Tensor, memory: StorageMemory) -> np.ndarray:
    """An ndarray on `memory`, or on a copy of the elements on the host if `tensor` has to be converted."""
    if converts(tensor):
        tensor = tensor.detach().resolve_conj().resolve_neg().cpu()
        memory = _memory_of(tensor.untyped_storage())
    _check_extent(tensor)  # NumPy does not, where a buffer is empty
    dtype, shape = _NUMPY[tensor.dtype], tuple(tensor.shape)
    if tensor.numel() == 0:
        return np.empty(shape, dtype)
    strides = [stride * dtype.itemsize for stride in tensor.stride()]
    buffer: Any = memory
    return np.ndarray(shape, dtype, buffer, tensor.storage_offset() * dtype.itemsize, strides)


@_plainly
def identity(tensor: torch.Tensor) -> Hashable:
    """What two tensors on the same storage have in common if they have the same elements."""
    return (
        tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg()
    )  # fmt: skip


# -------------------------------------------------------------------------------------- tensors out


class Form:
    """Makes tensors on memory of a record: one storage for what shares memory."""

    def __init__(self) -> None:
        self._storages: dict[tuple[int, int], torch.UntypedStorage] = {}

    def check(self, descr: np.dtype) -> None:
        """Raise a TypeError if torch has no such dtype."""
        if descr not in _TORCH:
            hint = "" if descr.isnative else ": turn it into native byte order"
            raise TypeError(f"torch {torch.__version__} has no dtype for NumPy's {descr.str} ({descr}){hint}")

    def make(
        self,
        descr: np.dtype,
        shape: tuple[int, ...],
        fortran_order: bool,
        buffer: object,
        root: object,
        address: int,
        nbytes: int,
        offset: int,
        writable: bool,
    ) -> torch.Tensor:
        """A tensor on the `nbytes` bytes of memory at `address`, from `offset` on.

        The memory is that of `root`, and `buffer` keeps it in place.

        Where it is not `writable`, an inference tensor, which is as close as torch comes to read-only: whoever
        writes to it gets an error, but not before it has been written to.
        """
        with torch.inference_mode(not writable):
            # Not empty(dtype=...), which warns of complex32.
            tensor = torch.empty(0, dtype=torch.uint8, device="cpu").view(_TORCH[descr])
            if 0 in shape:
                return tensor.reshape(shape)
            if offset % descr.itemsize:  # a storage is counted in elements
                address, nbytes, offset = address + offset, nbytes - offset, 0
            axes = range(len(shape)) if fortran_order else reversed(range(len(shape)))
            strides, step = [0] * len(shape), 1
            for axis in axes:
                strides[axis] = step
                step *= shape[axis]
            storage = self._storage(buffer, root, address, nbytes, writable)
            return tensor.set_(storage, offset // descr.itemsize, shape, strides)

    def _storage(self, buffer: object, root: object, address: int, nbytes: int, writable: bool) -> torch.UntypedStorage:
        # What stays with the record is never shown as the storage it was: torch may resize that, or move
        # it to shared memory.
        if writable and isinstance(root, StorageMemory) and root.address == address:
            storage: torch.UntypedStorage = root.owner
            return storage
        key = root.key if isinstance(root, StorageMemory) else id(root), address
        if key not in self._storages:
            loan = Loan(buffer, address, nbytes)
            self._storages[key] = torch.frombuffer(loan, dtype=torch.uint8).untyped_storage()
            _loans[self._storages[key]._cdata] = loan
        return self._storages[key]
