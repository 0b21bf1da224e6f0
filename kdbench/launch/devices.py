"""The devices of this machine, determined without torch, so that a run that asks for one that is missing never starts."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from kdbench.config import processor, run_config
from kdbench.errors import UserError
from kdbench.launch.gpus import too_few, visible_gpus
from kdbench.plan.spec import Spec


def check(specs: Iterable[Spec]) -> list[str]:
    """Check that this machine has the devices that runs name; `Machine.device=auto` on one GPU or CPU needs none.

    Returns:
        Sentences for the user: runs in bfloat16 on a CPU that does not compute it natively.

    Raises:
        UserError: a device is certainly missing. One that torch cannot use for another reason is found by the run.
    """
    specs = list(specs)
    for device, gpus in dict.fromkeys((spec.device, spec.gpus) for spec in specs):
        kind, _, number = device.partition(":")
        if kind == "mps" and sys.platform != "darwin":
            raise UserError(
                f"Machine.device={device} needs an Apple GPU, which this machine does not have; {_LEAVE_OUT}"
            )
        if kind == "cuda":
            _check_cuda(device, int(number or 0), gpus)
        elif kind == "auto" and gpus > 1 and not processor.may_have_gpu():
            raise UserError(
                f"gpus={gpus}, but this machine has no GPU; pass Machine.device=cpu to share each batch among {gpus} "
                "processes of the CPU"
            )
        elif kind == "auto" and gpus > 1 and 0 < (here := len(visible_gpus())) < gpus:
            raise too_few(gpus, here)
    return slow_precision(specs)


def slow_precision(specs: Iterable[Spec]) -> list[str]:
    """A sentence for the user if some of these runs use bfloat16 on a CPU that has to imitate it; else none."""
    native = processor.cpu_precision()
    cpus = ("cpu",) if processor.may_have_gpu() else ("cpu", "auto")
    on_cpu = {spec.protocol: spec for spec in specs if spec.device in cpus and native.precision != "bfloat16"}
    for spec in on_cpu.values():
        if run_config.parse(spec.config, spec.id).values.get("Train.precision") == "bfloat16":
            return [f"Train.precision=bfloat16 is slower than float32 here, because {native.reason}"]
    return []


def check_shared(specs: Iterable[Spec], runs_per_gpu: int, here: bool = True) -> None:
    """Check that so many runs can share a GPU.

    Args:
        here: the runs are done on this machine.

    Raises:
        UserError: a run needs several GPUs or none, or names one, or this machine has none.
    """
    if runs_per_gpu == 1:
        return
    for spec in specs:
        if spec.gpus > 1:
            raise UserError(
                f"runs_per_gpu={runs_per_gpu} is for runs on one GPU, not with gpus={spec.gpus}; leave one out"
            )
        if not spec.device.startswith(("auto", "cuda")):
            raise UserError(f"runs_per_gpu={runs_per_gpu} needs GPUs, but Machine.device={spec.device}; leave one out")
        if spec.device not in ("auto", "cuda", "cuda:0"):
            raise UserError(
                f"runs_per_gpu={runs_per_gpu} is for all GPUs, but Machine.device={spec.device} names one; leave it out, and "
                "name the GPUs in CUDA_VISIBLE_DEVICES"
            )
    if here and not processor.may_have_gpu():
        raise UserError(
            f"runs_per_gpu={runs_per_gpu}, but this machine has no GPU; pass workers={runs_per_gpu} to share its CPU"
        )


_LEAVE_OUT = "leave it out, or pass Machine.device=cpu"


def _check_cuda(device: str, number: int, gpus: int) -> None:
    if not processor.may_have_gpu():
        raise UserError(f"Machine.device={device} needs a GPU, but this machine has none; {_LEAVE_OUT}")
    here = len(visible_gpus())
    if 0 < here < gpus:
        raise too_few(gpus, here)
    if 0 < here <= number:
        numbered = "only cuda:0" if here == 1 else f"cuda:0 to cuda:{here - 1}"
        raise UserError(f"Machine.device={device}, but this machine has {numbered}")
