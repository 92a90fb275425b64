"""Flower's own names make our classes, so that an app need not change a line."""

from __future__ import annotations

from collections.abc import Callable
from threading import local
from typing import Any

from flwr.app import Array as _FlowerArray, ArrayRecord as _FlowerArrayRecord
from flwr.compat.common.record import ParametersRecord as _FlowerParametersRecord

from .arrays import Array
from .records import ArrayRecord, ParametersRecord

MAKERS = {
    _FlowerArray: (Array, ("from_numpy_ndarray", "from_torch_tensor", "inflate")),
    _FlowerArrayRecord: (
        ArrayRecord,
        ("from_array_dict", "from_numpy_ndarrays", "from_torch_state_dict", "inflate"),
    ),
    _FlowerParametersRecord: (ParametersRecord, ()),
}


_at_work = local()  # `on_theirs`: Flower's own code makes what a subclass of its class is to hold


def take_over() -> None:
    """Let a call of ``flwr.app.Array``, ``ArrayRecord`` or ``ParametersRecord`` make one of ours.

    The classes stay the ones that they are, so that it does not matter who has imported them when, and
    `isinstance` means what it meant. Subclasses of somebody else's stay Flower's.
    """
    for theirs, (ours, makers) in MAKERS.items():
        theirs.__new__ = _new(theirs, ours)  # type: ignore[method-assign]  # taking its place is what this is for
        for name in makers:
            setattr(theirs, name, _maker(theirs, ours, name))


def _new(theirs: type, ours: Any) -> Callable[..., Any]:
    inherited: Any = theirs.__new__

    def __new__(cls: type, *args: Any, **kwargs: Any) -> Any:
        if cls is theirs and not getattr(_at_work, "on_theirs", False):
            return ours.__new__(ours)
        return object.__new__(cls) if inherited is object.__new__ else inherited(cls, *args, **kwargs)

    return __new__


def _maker(theirs: type, ours: type, name: str) -> Any:
    inherited = vars(theirs)[name].__func__

    def maker(cls: type, *args: Any, **kwargs: Any) -> Any:
        if cls is theirs and not getattr(_at_work, "on_theirs", False):
            return getattr(ours, name)(*args, **kwargs)
        before, _at_work.on_theirs = getattr(_at_work, "on_theirs", False), True
        try:
            return inherited(cls, *args, **kwargs)
        finally:
            _at_work.on_theirs = before

    return classmethod(maker)
