"""Energy used by GPUs, as their driver counts it (NVML; `pip install kdbench[energy]`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import torch


class Energy:
    """Energy that GPUs have used since this object was created, by all processes.

    Args:
        gpus: their UUIDs ("GPU-…"), which do not depend on `CUDA_VISIBLE_DEVICES`.
        nvml: the module pynvml, or one like it; None where there is none.
    """

    def __init__(self, gpus: Sequence[str], nvml: Any):
        self._nvml = nvml
        self._handles: list[Any] = []
        if nvml is not None and gpus:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlInit()
                self._handles = [nvml.nvmlDeviceGetHandleByUUID(gpu) for gpu in gpus]
        self._before = self._millijoules()

    def joules(self) -> float | None:
        """Joules used so far.

        None where this cannot be measured: on a CPU, without pynvml, on a GPU that does not count, on several machines.
        """
        now = self._millijoules()
        return None if self._before is None or now is None else (now - self._before) / 1000

    def _millijoules(self) -> int | None:
        if not self._handles:
            return None
        try:
            return sum(int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self._handles)
        except self._nvml.NVMLError:
            return None


def of_devices(device: torch.device, count: int) -> Energy:
    """Energy of the `count` devices of a run, of which `device` is this process's; not measured on several machines."""
    if device.type != "cuda" or int(os.environ.get("LOCAL_WORLD_SIZE", count)) < count:
        return Energy([], None)
    first = device.index if device.index is not None else torch.cuda.current_device()
    indices = [first] if count == 1 else range(count)
    gpus = [str(torch.cuda.get_device_properties(index).uuid) for index in indices]
    return Energy([gpu if gpu.startswith("GPU-") else f"GPU-{gpu}" for gpu in gpus], _nvml())


def total(parts: Sequence[float | None]) -> float | None:
    """Sum over the processes that did a run; None if one of them could not measure."""
    measured = [part for part in parts if part is not None]
    return round(sum(measured), 3) if len(measured) == len(parts) else None


def _nvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
