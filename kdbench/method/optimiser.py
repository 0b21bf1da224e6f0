"""The optimiser of a recipe, built for the parameters of a phase."""

from __future__ import annotations

import torch
from torch import nn

from kdbench import eager
from kdbench.config import optimisers


class SGD(torch.optim.SGD):
    """torch's, which needs no compiler (`kdbench.eager`)."""

    step = eager.uninterrupted(torch.optim.SGD.step)


class AdamW(torch.optim.AdamW):
    """torch's, which needs no compiler (`kdbench.eager`)."""

    step = eager.uninterrupted(torch.optim.AdamW.step)


def build(
    parameters: list[nn.Parameter], settings: optimisers.SGD | optimisers.AdamW
) -> dict[str, torch.optim.Optimizer]:
    """The optimiser that `settings` describe, under its name: "sgd" or "adamw"."""
    if isinstance(settings, optimisers.SGD):
        sgd = SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )
        return {"sgd": sgd}
    return {"adamw": AdamW(_groups(parameters, settings), lr=settings.lr, betas=_pair(settings.betas))}


def _groups(parameters: list[nn.Parameter], settings: optimisers.AdamW) -> list[dict[str, object]]:
    if settings.decay_vectors:
        return [{"params": parameters, "weight_decay": settings.weight_decay}]
    decayed = {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay}
    others = {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}
    return [group for group in (decayed, others) if group["params"]]


def _pair(betas: tuple[float, ...]) -> tuple[float, float]:
    first, second = betas
    return first, second
