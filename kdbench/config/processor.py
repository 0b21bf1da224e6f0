"""The precision that a machine's processors compute natively, for `Train.precision='auto'`. Only a GPU needs torch to be loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdbench.errors import loading_torch

AUTO = "auto"
"""The value of `Train.precision` that a plan replaces by `native_precision` of the run's device."""

LEAST_CAPABILITY = (8, 0)
"""The first compute capability of NVIDIA's GPUs whose tensor cores multiply bfloat16: Ampere."""

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
_CPUINFO = Path("/proc/cpuinfo")
_GPU_DRIVERS = tuple(Path("/dev", name) for name in ("nvidiactl", "kfd", "dxg"))
"""Device files of the drivers of NVIDIA, AMD and WSL."""


@dataclass(frozen=True)
class Choice:
    """A precision, and why it is the right one for a device, as the end of a sentence."""

    precision: Literal["float32", "bfloat16"]
    reason: str


def native_precision(device: str) -> Choice:
    """bfloat16 where a device computes it natively, else float32.

    Several GPUs count as the least of them, so that the answer does not depend on which one a run gets.

    Args:
        device: as `Machine.device` has it: "auto", "cpu", "cuda:1".

    Raises:
        RunError: there is too little memory to load torch, which has to be asked about a GPU.
    """
    kind, _, number = device.partition(":")
    if kind in ("auto", "cuda") and may_have_gpu() and (choice := _of_gpus(number)):
        return choice
    if kind in ("auto", "cpu"):
        return cpu_precision()
    if kind == "cuda":
        return Choice("float32", f"torch finds no GPU for Machine.device={device}")
    return Choice("float32", f"bfloat16 is chosen on CPUs and NVIDIA GPUs only, and not for Machine.device={device}")


def cpu_precision() -> Choice:
    """`native_precision` of the CPU: bfloat16 with AVX512-BF16 or AMX, unless a variable limits torch to other instructions."""
    instructions = [name for name in _INSTRUCTIONS if name in cpu_flags()]
    if not instructions:
        return Choice("float32", f"this CPU has no bfloat16 instructions ({', '.join(_INSTRUCTIONS)})")
    if variable := _limited_by():
        return Choice("float32", f"{variable} limits torch to instructions without bfloat16")
    return Choice("bfloat16", f"this CPU has instructions for it ({', '.join(instructions)})")


def cpu_flags() -> frozenset[str]:
    """The instruction sets of the CPU, named as Linux names them; empty on other systems."""
    try:
        with _CPUINFO.open(encoding="utf-8", errors="replace") as file:
            # x86 has a line of flags, ARM one of features; both are the same for every core.
            line = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return frozenset()
    return frozenset(line.partition(":")[2].split())


def may_have_gpu() -> bool:
    """False only where there is certainly none: `CUDA_VISIBLE_DEVICES` hides every GPU, or no driver has a device file."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return visible.strip() not in ("", "-1")
    return any(path.exists() for path in _GPU_DRIVERS)


_ISA = ("sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni")
# With ATEN_CPU_CAPABILITY=avx2 oneDNN still uses all instructions, and bfloat16 is twice as fast as float32.
_WITHOUT_BFLOAT16 = {"ONEDNN_MAX_CPU_ISA": _ISA, "DNNL_MAX_CPU_ISA": _ISA, "ATEN_CPU_CAPABILITY": ("default",)}
"""Values of variables, in lower case, that limit torch so far that bfloat16 is slower than float32."""


def _limited_by() -> str | None:
    for name, values in _WITHOUT_BFLOAT16.items():
        if (value := os.environ.get(name, "")).lower() in values:
            return f"{name}={value}"
    return None


def _of_gpus(number: str) -> Choice | None:
    """The choice for one GPU, or for the least of all; None if torch has no such GPU."""
    with loading_torch():
        import torch
    numbers = [each for each in range(torch.cuda.device_count()) if number in ("", str(each))]
    if not numbers:
        return None
    if torch.version.hip:
        return Choice("float32", "bfloat16 is chosen on CPUs and NVIDIA GPUs only, and not on those of AMD")
    least = min(numbers, key=torch.cuda.get_device_capability)
    capability = torch.cuda.get_device_capability(least)
    name, written = torch.cuda.get_device_name(least), ".".join(map(str, capability))
    if capability < LEAST_CAPABILITY:
        needed = ".".join(map(str, LEAST_CAPABILITY))
        return Choice("float32", f"{name} has no bfloat16 units (compute capability {written}, below {needed})")
    return Choice("bfloat16", f"{name} computes it natively (compute capability {written})")
