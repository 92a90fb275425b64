"""A model out of a message and into one: all that differs between stock and flat records."""

from collections.abc import Callable

import torch
from flwr.app import ArrayRecord

from .model import Transformer


def load(records: str, arrays: ArrayRecord, make: Callable[[], Transformer], keep: bool = False) -> Transformer:
    """A model with the weights in `arrays`; with `keep` one to read only, and `arrays` can be used again."""
    if records == "stock":
        model = make().requires_grad_(not keep)  # as below: torch may compute otherwise what needs no gradient
        model.load_state_dict(arrays.to_torch_state_dict())  # copied, and copied again
        return model
    with torch.device("meta"):  # the model's shape, without memory
        model = make().requires_grad_(not keep)
    model.load_state_dict(arrays.to_torch_state_dict(keep_input=keep, copy=False if keep else None), assign=True)  # the record's own memory
    model.tie_weights()  # `assign` gives each name a parameter of its own
    return model


def pack(records: str, model: Transformer) -> ArrayRecord:
    """The weights of a model, to be sent."""
    if records == "stock":
        return ArrayRecord(model.state_dict())  # copied
    from flatrecord import flower  # stock needs none

    return flower.ArrayRecord(model.state_dict(), copy=False)  # the model's own memory
