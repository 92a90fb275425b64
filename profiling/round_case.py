"""A client's round, run in a process of its own: ``python -m profiling.cases round ...``."""

from __future__ import annotations

from collections.abc import Iterator

import flwr.app
import numpy as np
import torch

import flatrecord
from flatrecord._core.buffer import empty_cache

from .models import ROUND_LAYER as LAYER
from .models import ROUND_SIDE as SIDE
from .process import Child, forget_peak, status


def network(layers: int) -> torch.nn.Sequential:
    """A stack of linear layers of 16 MiB."""
    return torch.nn.Sequential(*(torch.nn.Linear(SIDE, SIDE, bias=False) for _ in range(layers)))


def one_step(model: torch.nn.Module) -> None:
    """One step of SGD, in which each layer is updated as soon as it has its gradient, which is let go then.

    As in PyTorch's tutorial on fusing the optimizer step into the backward pass: the step itself
    costs one layer, so that what is left is what the records cost.
    """
    optimizers = {parameter: torch.optim.SGD([parameter], 0.5) for parameter in model.parameters()}

    def step(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    hooks = [parameter.register_post_accumulate_grad_hook(step) for parameter in model.parameters()]
    model(torch.ones(1, SIDE)).sum().backward()
    for hook in hooks:
        hook.remove()


def with_flatrecord(child: Child, record: flatrecord.ArrayRecord, layers: int) -> Iterator:
    """The round with this package: the received memory is the model's, and the reply shows it."""
    child.phase("record → model")
    with torch.device("meta"):
        model = network(layers)
    model.load_state_dict(record.to_torch_state_dict(keep_input=False), assign=True)
    yield "record → model"
    child.phase("one step of SGD")
    one_step(model)
    yield "one step of SGD"
    child.phase("model → record")
    reply = flatrecord.ArrayRecord.from_torch_state_dict(model.state_dict(), copy=False)
    yield "model → record"
    child.phase("chunks read")
    with open("/dev/null", "wb", buffering=0) as network_card:
        for array in reply.values():
            for chunk in array.chunks():
                network_card.write(chunk)
    yield "chunks read"
    yield model, reply


def with_flwr(child: Child, record: flwr.app.ArrayRecord, layers: int) -> Iterator:
    """The round with stock Flower, as its quickstart for PyTorch has it."""
    child.phase("record → model")
    model = network(layers)
    model.load_state_dict(record.to_torch_state_dict())
    yield "record → model"
    child.phase("one step of SGD")
    one_step(model)
    yield "one step of SGD"
    child.phase("model → record")
    reply = flwr.app.ArrayRecord(model.state_dict())
    yield "model → record"
    child.phase("chunks read")
    with open("/dev/null", "wb", buffering=0) as network_card:
        for array in reply.values():
            for _, chunk in array.slice_array():
                network_card.write(chunk.deflate())
    yield "chunks read"
    yield model, reply


def received(library, layers: int):
    """A record as it comes from the network: each array one `bytes`."""
    record = library.ArrayRecord()
    for i in range(layers):
        weight = np.full((SIDE, SIDE), 1 / SIDE, np.float32)
        weight[0] += i
        data = flatrecord.Array(weight, copy=False).data
        record[f"{i}.weight"] = library.Array("float32", (SIDE, SIDE), "numpy.ndarray", data)
    return record


def round_case(child: Child, library: str, layers: str) -> None:
    """A client's round without a network: received record → model → one step of SGD → record → chunks read."""
    module, work = {"flatrecord": (flatrecord, with_flatrecord), "flwr": (flwr.app, with_flwr)}[library]
    for _ in work(Child(quiet=True), received(module, 1), 1):  # what is loaded once is not the model's
        pass
    empty_cache()  # of what was only to be loaded
    interpreter = status("VmRSS")
    child.phase("receive")
    record = received(module, int(layers))
    before, peaks = record["0.weight"].numpy().copy(), {}
    forget_peak()
    for found in work(child, record, int(layers)):
        if isinstance(found, str):
            peaks[found] = status("VmHWM") - interpreter
            forget_peak()
    model, reply = found
    state_dict = model.state_dict()
    equal = sum(np.array_equal(reply[key].numpy(), tensor.numpy()) for key, tensor in state_dict.items())
    child.result(
        peaks=peaks,
        nbytes=int(layers) * LAYER,
        interpreter=interpreter,
        entries=len(state_dict),
        equal=equal,
        trained=not np.array_equal(before, reply["0.weight"].numpy()),
    )
    child.phase("end")
