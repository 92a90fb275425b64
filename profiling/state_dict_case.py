"""The case with tensors, run in a process of its own: ``python -m profiling.cases state_dict ...``."""

from __future__ import annotations

import time

import torch

import flatrecord
from flatrecord.profile.resident import forget_peak, status

from .cases import fill, is_filled, report
from .models import LLAMAS
from .process import Child


def state_dict_case(child: Child, name: str, gib: str) -> None:
    """A large model's names and shapes as bfloat16 tensors: into a record, out, every bit compared."""
    shape_of = LLAMAS[name].resized(float(gib) * 2**30 * 2) if float(gib) else LLAMAS[name]
    total = shape_of.nbytes // 2
    flatrecord.ParametersRecord({"x": torch.zeros(1)}).to_torch_state_dict(keep_input=False)  # loaded once
    interpreter = status("VmRSS")
    child.phase("make the model")
    state_dict, done = {}, 0
    for i, (key, shape) in enumerate(shape_of.shapes()):
        state_dict[key] = torch.empty(shape, dtype=torch.bfloat16)
        fill(state_dict[key].view(torch.uint8).numpy(), i)
        done += state_dict[key].nbytes
        child.progress(done, total)
    forget_peak()
    child.phase("state_dict → record")
    began = time.perf_counter()
    record = flatrecord.ParametersRecord.from_torch_state_dict(state_dict)
    child.phase("record → state_dict")
    tensors = record.to_torch_state_dict(keep_input=False)
    report(child, tensors.values(), time.perf_counter() - began, interpreter)
    child.phase("check every bit")
    equal = done = 0
    for i, tensor in enumerate(tensors.values()):
        equal += is_filled(tensor.view(torch.uint8).numpy(), i)
        done += tensor.nbytes
        child.progress(done, total)
    child.result(equal=equal, left=len(state_dict))
    child.phase("end")
