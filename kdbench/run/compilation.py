"""torch.compile for the networks of a run, as `Machine.compile` asks for it. Losses and optimisers are not compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from kdbench.method import Method
from kdbench.run.sync_bn import SyncBatchNorm

Mode = bool | Literal["reduce-overhead"]


def compile_networks(method: Method, mode: Mode) -> None:
    """Compile student and peers, forward and backward, and the teachers, of which no gradient is asked.

    Args:
        mode: True for torch's default; "reduce-overhead" also records CUDA graphs; False does nothing.
    """
    if not mode:
        return
    teachers = (teacher.network for teacher in method.teachers)
    for network in dict.fromkeys((*method.networks(), *teachers)):
        for module in network.modules():
            if isinstance(module, SyncBatchNorm):  # communication is not part of a graph
                module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]
        network.compile(mode=None if mode is True else mode)


def beginning_of_step(mode: Mode) -> Callable[[], None]:
    """A function to be called before each step. With CUDA graphs, it allows what the last step returned to be overwritten."""
    return torch.compiler.cudagraph_mark_step_begin if mode == "reduce-overhead" else lambda: None


def not_compiled(mode: Mode) -> AbstractContextManager[object]:
    """A context in which compiled networks run as they are written: evaluations have batches of other sizes, each to be compiled,
    and would be recorded as further CUDA graphs while the gradients of the last step are alive.
    """
    return torch.compiler.set_stance("force_eager") if mode else nullcontext()
