"""Objects that work with records when they are let go, which happens while modules are being torn down."""

import numpy as np

from flatrecord import Array, ParametersRecord


class Late:
    """Has what it needs in its defaults, as globals may be None by then."""

    def __init__(self):
        self.record = ParametersRecord({"a": np.arange(3.0), "b": np.zeros(3 << 20, "u1")})
        self.view = self.record["b"].numpy()

    def __del__(self, make=ParametersRecord, array=Array, arange=np.arange):
        made = make({"a": arange(3.0), "b": self.view}, True)
        assert made["b"] == self.record["b"] and array(self.view).nbytes > 1 << 20
        made.to_numpy_ndarrays(keep_input=False)
        self.record.clear()


class InCycle(Late):
    """Is let go by the last collection."""

    def __init__(self):
        super().__init__()
        self.own = self


class Tagged(Array):
    """An Array that is asked for its values when it is let go."""

    def __del__(self):
        assert self.numpy()[2] == 2  # not its sum, for which NumPy would import more


late, in_cycle, tagged = Late(), InCycle(), Tagged(np.arange(3.0))
print("done")
