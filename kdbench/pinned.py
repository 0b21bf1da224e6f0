"""Copies from the CPU to a GPU that do not make the CPU wait."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on the device; itself if it is there.

    To a GPU it goes through page-locked memory: a copy from other memory waits until the GPU has done all that was asked of it
    before (CUDA runtime API, "API synchronization behavior"). torch reuses that memory only after the copy.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
