"""What a process takes."""

from torch import nn


def peak_beside(model: nn.Module) -> str:
    """The peak of this process beside the size of its model."""
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) / 2**10 for line in status if line.startswith("VmHWM:"))
    size = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    return f"peak {peak:.0f} MiB, model {size:.1f} MiB"
