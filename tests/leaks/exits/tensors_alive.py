"""Tensors on records' memory, and records on tensors', are alive; among them parameters of a model and inference tensors."""

import numpy as np
import torch

from flatrecord import Array, ParametersRecord

model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
taken = ParametersRecord({"a": torch.arange(6.0), "b": torch.zeros(1 << 20)})
borrowed = ParametersRecord.from_torch_state_dict(model.state_dict(), copy=False)
shown = ParametersRecord({"a": np.arange(6.0), "b": np.zeros(3 << 20, "u1")}).to_torch_state_dict()
released = ParametersRecord({"a": np.arange(6.0), "b": np.zeros(3 << 20, "u1")}).to_torch_state_dict(keep_input=False)
array = Array(torch.zeros(3))
seen = [taken["a"].torch(), taken["b"].torch(), released["a"].numpy(), torch.from_dlpack(array.numpy(copy=True))]
model.load_state_dict(borrowed.to_torch_state_dict(copy=True), assign=True)
print("done")
