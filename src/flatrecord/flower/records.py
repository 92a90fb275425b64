"""ArrayRecord and ParametersRecord: Flower's classes on compiled storage."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, overload

from flwr.app import Array as _FlowerArray, ArrayRecord as _FlowerArrayRecord
from flwr.compat.common.record import ParametersRecord as _FlowerParametersRecord
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_object_id

from .._core.array import Array as _Array
from .._core.parts import as_class
from .._core.record import ArrayRecord as _ArrayRecord, ParametersRecord as _ParametersRecord
from .arrays import Array, flat, identify
from .wire import fields, head

if TYPE_CHECKING:
    from _typeshed import SupportsKeysAndGetItem
    from numpy.typing import NDArray
    from torch import Tensor
    from typing_extensions import override

    from .._core.record import _Value

_Either: TypeAlias = _Array | _FlowerArray
_T = TypeVar("_T")


class ArrayRecord(_ArrayRecord, _FlowerArrayRecord):
    """ArrayRecord(array_dict=None, keep_input=True, *, numpy_ndarrays=None, torch_state_dict=None, copy=None)

    Flower's ``ArrayRecord`` on compiled storage: an instance of both ``flwr.app.ArrayRecord`` and
    `flatrecord.ArrayRecord`.

    Parameters
    ----------
    array_dict : mapping or list, optional
        A mapping of `str` to Arrays (Flower's own too), `numpy.ndarray` or `torch.Tensor`, mixed as you
        like. Or a list of these, whose keys become ``"0"``, ``"1"``, ...
    keep_input : bool
        As for `flatrecord.ArrayRecord`, but that Arrays are shared and not duplicated, as Flower does.
    numpy_ndarrays, torch_state_dict : keyword only
        The same as a list of ndarrays or a mapping of tensors in the first place.
    copy : {None, True, False}, keyword only
        As for `flatrecord.ArrayRecord`.

    Attributes
    ----------
    consumable : bool
        Set it to True in a record that is sent once: each array then leaves the record when the other end has
        acknowledged all of it, so that its memory is free for others. What has not been acknowledged when
        something fails is still there. False if not set.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for `flatrecord.ArrayRecord`.

    See Also
    --------
    flatrecord.ArrayRecord : what happens to the memory, and what the other methods do.
    """

    array_class = Array
    consumable = False

    def __init__(
        self,
        array_dict: Mapping[str, _Value | _FlowerArray] | Sequence[_Value | _FlowerArray] | None = None,
        keep_input: bool = True,
        *,
        numpy_ndarrays: list[NDArray[Any]] | tuple[NDArray[Any], ...] | None = None,
        torch_state_dict: Mapping[str, Tensor] | None = None,
        copy: bool | None = None,
    ) -> None:
        if sum(source is not None for source in (array_dict, numpy_ndarrays, torch_state_dict)) > 1:
            raise TypeError("a record is made of one of array_dict, numpy_ndarrays and torch_state_dict")
        if numpy_ndarrays is not None and not isinstance(numpy_ndarrays, (list, tuple)):
            raise TypeError(f"numpy_ndarrays must be a list of NumPy arrays, got {type(numpy_ndarrays).__name__}")
        if torch_state_dict is not None and not isinstance(torch_state_dict, Mapping):
            raise TypeError(f"torch_state_dict must be a mapping of str to tensors, got {type(torch_state_dict).__name__}")
        source: Any = next((given for given in (array_dict, numpy_ndarrays, torch_state_dict) if given is not None), None)
        if not _needs_a_container_of_its_own(source, keep_input, copy):
            super().__init__(source, keep_input, copy=copy)
            return
        # From which Arrays are taken as they are, and what else its owner holds is copied.
        super().__init__(_own_container(source), False, copy=copy)
        if not keep_input:
            source.clear()

    @classmethod
    def from_array_dict(cls, array_dict: Mapping[str, _Either], *, keep_input: bool = True) -> Self:
        """Make a record of a dict of Arrays, whose memory is shared: ``ArrayRecord(array_dict)``."""
        return cls(array_dict, keep_input)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):  # what a pickle holds of one of Flower's own
            self.update(state["_data"])
        else:
            super().__setstate__(state)  # type: ignore[misc]  # of the core, whose stub keeps silent about pickle

    if TYPE_CHECKING:  # what is in it, of which each of the bases says less

        @override
        def __getitem__(self, key: str, /) -> Array: ...
        @overload
        def get(self, key: str, default: None = None) -> Array | None: ...
        @overload
        def get(self, key: str, default: _T) -> Array | _T: ...
        @override
        def get(self, key: str, default: object = None) -> object: ...
        @overload
        def pop(self, key: str) -> Array: ...
        @overload
        def pop(self, key: str, default: _T) -> Array | _T: ...
        @override
        def pop(self, key: str, default: object = None) -> object: ...
        @override
        def popitem(self) -> tuple[str, Array]: ...
        @override
        def values(self) -> ValuesView[Array]: ...
        @override
        def items(self) -> ItemsView[str, Array]: ...

    def __setitem__(self, key: str, value: _Either) -> None:
        super().__setitem__(key, flat(value))

    def setdefault(self, key: str, default: _Either | None = None) -> Array:
        """The Array of `key`; put `default` there first if there is none.

        Raises
        ------
        TypeError
            As `flatrecord.ArrayRecord.setdefault`.
        """
        return super().setdefault(key, flat(default))  # type: ignore[return-value]  # of `array_class`, as all that is in it

    def update(self, other: SupportsKeysAndGetItem[str, _Either] | Iterable[tuple[str, _Either]] = (), /, **entries: _Either) -> None:
        """Put in the pairs of a mapping, or of an iterable of pairs, and of the keyword arguments.

        Raises
        ------
        TypeError, ValueError
            As `flatrecord.ArrayRecord.update`.
        """
        given: Any = other
        pairs = [(key, given[key]) for key in given.keys()] if hasattr(given, "keys") else given
        flattened = [(pair[0], flat(pair[1])) if isinstance(pair, (tuple, list)) and len(pair) == 2 else pair for pair in pairs]
        super().update(flattened, **{key: flat(value) for key, value in entries.items()})

    @property  # type: ignore[misc]  # which nobody need set
    def is_dirty(self) -> bool:
        """bool: True, as the id of the record itself, which is cheap to compute, is not kept."""
        return True

    @property
    def object_id(self) -> str:
        """str: SHA-256 of the deflated record, in hexadecimal."""
        return get_object_id(self.deflate())

    def to_numpy_ndarrays(self, *, keep_input: bool = True, copy: bool | None = None) -> list[NDArray[Any]]:
        """The record's arrays as a list of ndarrays, in order, writable and independent as Flower gives them.

        Parameters
        ----------
        keep_input : bool
            If False, each entry leaves the record before the next is handled, and hands its memory over.
        copy : {None, True, False}
            With `keep_input`, None and True copy, and False gives read-only views on the record's memory. Without,
            as for `flatrecord.ArrayRecord`.

        Returns
        -------
        list of numpy.ndarray

        Raises
        ------
        TypeError, ValueError, MemoryError
            As `flatrecord.ArrayRecord.to_numpy_ndarrays`.
        """
        return super().to_numpy_ndarrays(keep_input=keep_input, copy=_as_flower(keep_input, copy))

    def to_torch_state_dict(self, *, keep_input: bool = True, copy: bool | None = None) -> OrderedDict[str, Tensor]:
        """The record's arrays as a state_dict of tensors, in order, free to be trained as Flower gives them.

        Parameters
        ----------
        keep_input, copy
            As for `to_numpy_ndarrays`. For what ``copy=False`` gives see `flatrecord.ArrayRecord.to_torch_state_dict`.

        Returns
        -------
        collections.OrderedDict of str to torch.Tensor
            On the CPU, not requiring gradients. With the ``_metadata`` that the record got.

        Raises
        ------
        ModuleNotFoundError
            If torch is not installed.
        TypeError, ValueError, MemoryError
            As `flatrecord.ArrayRecord.to_torch_state_dict`.
        """
        return super().to_torch_state_dict(keep_input=keep_input, copy=_as_flower(keep_input, copy))

    @property
    def children(self) -> dict[str, InflatableObject]:
        """dict[str, Array]: the Arrays by their object ids."""
        arrays: list[Any] = list(self.values())
        identify(arrays)
        return {array.object_id: array for array in arrays}

    def deflate(self) -> bytes:
        """What goes over the wire beside the Arrays: the keys and the Arrays' ids."""
        arrays: Any = self.values()
        identify(arrays)
        ids = {key: array.object_id for key, array in self.items()}
        content = json.dumps(ids).encode()
        return head("ArrayRecord", dict.fromkeys(ids.values()), len(content)) + content

    @classmethod
    def inflate(cls, object_content: bytes, children: dict[str, InflatableObject] | None = None) -> ArrayRecord:
        """Make a record of what came over the wire.

        Entries with the same content are one object there. Here each has memory of its own, as it had where it came
        from: else whoever trains one weight would train all that happened to be equal.

        Raises
        ------
        ValueError
            If the content is not that of a record, or the children are not the Arrays that it names.
        """
        ids = fields(object_content, "ArrayRecord")
        arrays = {object_id: flat(child) for object_id, child in (children or {}).items()}
        if not all(isinstance(object_id, str) for object_id in ids.values()) or set(ids.values()) != arrays.keys():
            raise ValueError(f"a record got {len(arrays)} Arrays, which are not those that it names")
        record = cls()
        seen: set[str] = set()
        for key, object_id in ids.items():
            array = arrays[object_id]
            if not isinstance(array, _Array):
                raise ValueError(f"key {key!r}: a value must be an Array, got {type(array).__name__}")
            record[key] = array.__deepcopy__({}) if object_id in seen else array
            seen.add(object_id)
        return record


class ParametersRecord(ArrayRecord, _FlowerParametersRecord):
    """`ArrayRecord` by the name that Flower had for it before, without Flower's warning.

    On the wire it is an ``ArrayRecord``, and comes out as one.
    """


def to_flower(record: Mapping[str, _Either]) -> ArrayRecord:
    """A record of Flower's kind with the Arrays of any other, on the same memory.

    Parameters
    ----------
    record : ParametersRecord, or a mapping of str to Arrays
        Stays as it is. As long as it is there, ``keep_input=False`` of the new one has to copy.

    Returns
    -------
    ArrayRecord
    """
    made = ArrayRecord(_own_container(record), keep_input=False)
    made.origin = getattr(record, "origin", None)
    return made


def from_flower(record: Mapping[str, _Either]) -> _ArrayRecord:
    """A `flatrecord.ArrayRecord` with the Arrays of a record of Flower's, on the same memory.

    Parameters
    ----------
    record : flwr.app.ArrayRecord, or a mapping of str to Arrays
        Flower's own or ours. Stays as it is.

    Returns
    -------
    flatrecord.ArrayRecord
        Needs no Flower, as in a pickle that is read elsewhere.
    """
    made = _ArrayRecord(_own_container(record), keep_input=False)
    made.update({key: as_class(array, _Array) for key, array in made.items()})
    made.origin = getattr(record, "origin", None)
    return made


def _as_flower(keep_input: bool, copy: bool | None) -> bool | None:
    return True if keep_input is True and copy is None else copy


def _needs_a_container_of_its_own(source: Any, keep_input: object, copy: object) -> bool:
    """Whether there are Arrays in `source` that the core would not take, or would duplicate."""
    if not isinstance(source, (Mapping, list, tuple)) or not isinstance(keep_input, bool):
        return False
    if not keep_input and not hasattr(source, "clear"):
        return False  # which is an error
    arrays = [value for value in (source.values() if isinstance(source, Mapping) else source) if _is_array(value)]
    return any(not isinstance(value, _Array) for value in arrays) or (keep_input and copy is None and len(arrays) > 0)


def _is_array(value: object) -> bool:
    return isinstance(value, (_Array, _FlowerArray))


def _own_container(source: Any) -> Any:
    if isinstance(source, _ParametersRecord):
        return source.copy()
    if not isinstance(source, Mapping):
        return [flat(value) for value in source]
    own = OrderedDict((key, flat(source[key])) for key in source)
    own._metadata = getattr(source, "_metadata", None)  # type: ignore[attr-defined]  # as torch gives it to state_dicts
    return own
