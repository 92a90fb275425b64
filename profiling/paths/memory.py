"""Into a record and out of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import flatrecord

from .contender import Contender, Path, Place, model, state_dict


def of_arrays(record: Any, place: Place) -> Iterable[Any]:
    """The arrays in a record, ours or Flower's, an entry at a time."""
    return (array.numpy() for array in record.values())


def flower_record(arrays: dict[str, Any]) -> Any:
    """Flower's own record of these arrays, which are let go of one by one."""
    import flwr.app

    record = flwr.app.ArrayRecord()
    for key in list(arrays):
        record[key] = flwr.app.Array(arrays.pop(key))
    return record


def flower_of_list(arrays: dict[str, Any], keep_input: bool) -> Any:
    """Flower's own record of a list of ndarrays."""
    import flwr.app

    values = list(arrays.values())
    if not keep_input:
        arrays.clear()
    return flwr.app.ArrayRecord(values, keep_input=keep_input)


def flower_of_tensors(tensors: dict[str, Any]) -> Any:
    """Flower's own record of a state_dict, which is emptied."""
    import flwr.app

    return flwr.app.ArrayRecord(tensors, keep_input=False)


TAKE = Path(
    "take",
    "A model goes into a record and leaves its dict (`keep_input=False`). No byte has to move.",
    (
        Contender("flatrecord, ndarrays", lambda arrays, place: flatrecord.ParametersRecord(arrays), of_arrays, bound=1.02),
        Contender(
            "flatrecord, state_dict",
            lambda tensors, place: flatrecord.ParametersRecord.from_torch_state_dict(tensors),
            of_arrays,
            prepare=lambda place: state_dict(place.size),
            needs=("torch",),
            bound=1.02,
        ),
        Contender("flwr, ndarrays", lambda arrays, place: flower_of_list(arrays, False), of_arrays, needs=("flwr",)),
        Contender(
            "flwr, state_dict",
            lambda tensors, place: flower_of_tensors(tensors),
            of_arrays,
            prepare=lambda place: state_dict(place.size),
            needs=("flwr", "torch"),
        ),
    ),
)
SNAPSHOT = Path(
    "snapshot",
    "A record gets a copy of a model that lives on (`keep_input=True`): two models are what is asked for.",
    (
        Contender("flatrecord", lambda arrays, place: flatrecord.ParametersRecord(arrays, keep_input=True), of_arrays, bound=2.02),
        Contender("flwr", lambda arrays, place: flower_of_list(arrays, True), of_arrays, needs=("flwr",)),
        Contender("copy.deepcopy", lambda arrays, place: copy.deepcopy(arrays), lambda arrays, place: arrays.values()),
    ),
    limit=("memcpy, fresh huge pages, all threads",),
)


def giving(name: str, made: Callable[[dict[str, Any]], Any], work: Callable[[Any], Any], **options: Any) -> Contender:
    """A record, as it is made of a dict of arrays, that gives them."""
    return Contender(
        name,
        lambda record, place: work(record),
        lambda arrays, place: arrays,
        prepare=lambda place: made(model(place.size)),
        **options,
    )


def taken_out(record: Any) -> Any:
    return record.to_numpy_ndarrays(keep_input=False)


TO_ARRAYS = Path(
    "to arrays",
    "A record's arrays come out, to be written to. No byte has to move, unless one asks for a copy.",
    (
        giving("flatrecord, keep_input=False", flatrecord.ParametersRecord, taken_out, bound=1.02),
        giving("flatrecord, copy=True", flatrecord.ParametersRecord, lambda record: record.to_numpy_ndarrays(copy=True), bound=2.02),
        giving("flwr, keep_input=False", flower_record, taken_out, needs=("flwr",)),
        giving("flwr", flower_record, lambda record: record.to_numpy_ndarrays(), needs=("flwr",)),
    ),
)
