"""Distillation-oriented trainer: knowledge distillation whose two gradients have a momentum each.

Zhao, Cui, Song and Liang, "DOT: A distillation-oriented trainer", ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, Update, distillation


class TwoMomenta(torch.optim.Optimizer):
    """SGD with two buffers: v ← (μ − Δ) v + g + λθ, u ← (μ + Δ) u + h, θ ← θ − η (v + u).

    g is the gradient of the task and h that of the distillation. A parameter that only one of them reaches keeps μ.
    Weight decay λ is part of v alone, and the first buffers are the gradients. There is no Nesterov form.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float, delta: float, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "delta": delta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, task: Sequence[Tensor | None], distilled: Sequence[Tensor | None]) -> None:  # type: ignore[override]
        """Move the parameters; one entry of each gradient for each of them, in order."""
        (group,) = self.param_groups
        for parameter, g, h in zip(group["params"], task, distilled, strict=True):
            delta = 0.0 if g is None or h is None else group["delta"]
            if g is not None:
                g = g.add(parameter, alpha=group["weight_decay"])
            for name, gradient, momentum in (
                ("task", g, group["momentum"] - delta),
                ("distillation", h, group["momentum"] + delta),
            ):
                if gradient is None:
                    continue
                buffers = self.state[parameter]
                old = buffers.get(name)
                buffers[name] = gradient.clone() if old is None else old.mul_(momentum).add_(gradient)
                parameter.sub_(group["lr"] * buffers[name])


class DOT(Method):
    """Cross-entropy and T² · KL from the teacher, as in knowledge distillation, trained by `TwoMomenta`.

    Args:
        delta: Δ, by which the momentum of the distillation is larger and that of the cross-entropy smaller.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    temperature: float
    delta: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * distillation(logits, target, self.temperature),
        }

    def optimisers(self, parameters: list[nn.Parameter], sgd: Any) -> dict[str, torch.optim.Optimizer]:
        return {"dot": TwoMomenta(parameters, sgd.lr, sgd.momentum, self.delta, sgd.weight_decay)}

    def update(self, terms: Mapping[str, Tensor], update: Update) -> None:
        task, distilled = update.gradient(terms["ce"], keep_graph=True), update.gradient(terms["kd"])
        update.clip(task, distilled)
        update.optimisers["dot"].step(task, distilled)
