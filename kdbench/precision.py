"""The limits of mixed precision: computations that must not run in half precision."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` itself if it is float32 or wider, else a float32 copy."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def full_precision(device: torch.device) -> torch.autocast:
    """A context in which autocast is off: matrix products inside keep the precision of their operands."""
    kind = (
        "cpu" if device.type == "meta" else device.type
    )  # autocast does not have that device, on which nothing is computed
    return torch.autocast(kind, enabled=False)
