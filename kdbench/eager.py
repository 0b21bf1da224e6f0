"""Starting without torch's compiler, whose import takes as long as that of all the rest of torch (2.5 s of CPU time each).

torch imports it not only to compile: an optimiser's first step does, so that a compiled step would be interrupted there, and
the first call of each function that is never to be compiled does, to mark it. In a process that compiles nothing both are
without effect. What is done here depends on details of torch; where a version has other ones, the compiler is imported as
before, and results are the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import _compile


def unmarked(cls: type) -> None:
    """Call the functions of a class that torch never compiles as they are, without importing the compiler to mark them."""
    for function in vars(cls).values():
        if inspect.isfunction(function) and function.__code__.co_filename == _compile.__file__:
            original = inspect.unwrap(function)
            vars(original).setdefault("__dynamo_disable", original)


def uninterrupted(step: Callable[..., Any]) -> Callable[..., Any]:
    """The `step` of one of torch's optimisers without what interrupts a compiled one; no gradient flows through it."""
    return cast("Callable[..., Any]", torch.no_grad()(inspect.unwrap(step)))


unmarked(torch.optim.Optimizer)
