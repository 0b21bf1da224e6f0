"""Costs of a run other than FLOPs (`flops.py`) and energy (`energy.py`): parameters and memory."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch
from torch import nn

_PROC = Path("/proc/self")


def parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def trained_parameters(module: nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


class PeakMemory:
    """Largest memory in use between the making of this object and `bytes()`: on a GPU what torch allocated there, on a CPU
    `resident_bytes()`.
    """

    def __init__(self, device: torch.device):
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        # Linux: resets the high-water mark. Elsewhere the figure is the peak since the process began.
        with contextlib.suppress(OSError):
            (_PROC / "clear_refs").write_text("5")

    def bytes(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return self.resident_bytes()

    @staticmethod
    def resident_bytes() -> int:
        """Largest resident memory of the whole process, interpreter and data included."""
        try:
            peak_line = re.search(
                r"VmHWM:\s+(\d+) kB", (_PROC / "status").read_text(encoding="utf-8", errors="replace")
            )
        except OSError:
            peak_line = None
        if peak_line:
            return int(peak_line[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
