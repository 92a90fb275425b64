"""A client's round without a network: received record → model → one step of SGD → record → chunks read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import flatrecord

from ..models import ENTRY, SIDE
from .contender import Contender, Path, Place


class Reply(NamedTuple):
    """What is left of a round."""

    before: np.ndarray  # the first layer, as it was received
    model: Any
    record: Any


def network(layers: int) -> Any:
    """A stack of linear layers of 16 MiB."""
    import torch

    return torch.nn.Sequential(*(torch.nn.Linear(SIDE, SIDE, bias=False) for _ in range(layers)))


def one_step(model: Any) -> None:
    """One step of SGD, in which each layer is updated as soon as it has its gradient, which is let go then.

    As in PyTorch's tutorial on fusing the optimizer step into the backward pass: the step itself
    costs one layer, so that what is left is what the records cost.
    """
    import torch

    optimizers = {parameter: torch.optim.SGD([parameter], 0.5) for parameter in model.parameters()}

    def step(parameter: Any) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    hooks = [parameter.register_post_accumulate_grad_hook(step) for parameter in model.parameters()]
    model(torch.ones(1, SIDE)).sum().backward()
    for hook in hooks:
        hook.remove()


def with_flatrecord(record: Any, place: Place) -> Reply:
    """The round with this package: the received memory is the model's, and the reply shows it."""
    import torch

    before, layers = record["0.weight"].numpy().copy(), len(record)
    with place.step("record → model"):
        with torch.device("meta"):
            model = network(layers)
        model.load_state_dict(record.to_torch_state_dict(keep_input=False), assign=True)
    with place.step("one step of SGD"):
        one_step(model)
    with place.step("model → record"):
        reply = flatrecord.ArrayRecord.from_torch_state_dict(model.state_dict(), copy=False)
    with place.step("chunks read"), open("/dev/null", "wb", buffering=0) as network_card:
        for array in reply.values():
            for chunk in array.chunks():
                network_card.write(chunk)
    return Reply(before, model, reply)


def with_flwr(record: Any, place: Place) -> Reply:
    """The round with stock Flower, as its quickstart for PyTorch has it."""
    import flwr.app

    before, layers = record["0.weight"].numpy().copy(), len(record)
    with place.step("record → model"):
        model = network(layers)
        model.load_state_dict(record.to_torch_state_dict())
    with place.step("one step of SGD"):
        one_step(model)
    with place.step("model → record"):
        reply = flwr.app.ArrayRecord(model.state_dict())
    with place.step("chunks read"), open("/dev/null", "wb", buffering=0) as network_card:
        for array in reply.values():
            for _, chunk in array.slice_array():
                network_card.write(chunk.deflate())
    return Reply(before, model, reply)


def received(library: Callable[[], Any]) -> Callable[[Place], Any]:
    """A record as it comes from the network: each array one `bytes`."""

    def prepare(place: Place) -> Any:
        module = library()
        record = module.ArrayRecord()
        for i in range(place.size.entries):
            weight = np.full((SIDE, SIDE), 1 / SIDE, np.float32)
            weight[0] += i
            data = flatrecord.Array(weight, copy=False).data
            record[f"{i}.weight"] = module.Array("float32", (SIDE, SIDE), "numpy.ndarray", data)
        return record

    return prepare


def is_reply(reply: Reply) -> bool:
    """Whether every layer was trained, and is sent as it is in the model."""
    state_dict = reply.model.state_dict()
    equal = all(np.array_equal(reply.record[key].numpy(), tensor.numpy()) for key, tensor in state_dict.items())
    return equal and list(reply.record) == list(state_dict) and not np.array_equal(reply.before, reply.record["0.weight"].numpy())


def flwr_app() -> Any:
    import flwr.app

    return flwr.app


ROUND = Path(
    "client round",
    "A received model is put into a network, trained for one step, and read to be sent; each layer is updated as soon as it has its "
    "gradient.",
    (
        Contender("flatrecord", with_flatrecord, check=is_reply, prepare=received(lambda: flatrecord), needs=("torch",), bound=1.05),
        Contender("flwr", with_flwr, check=is_reply, prepare=received(flwr_app), needs=("torch", "flwr")),
    ),
    prepares="receive",
    stepwise=True,
    slack=3 * ENTRY,  # an entry, its gradient, and the first layer as it was before
)
