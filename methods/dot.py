"""DOT: knowledge distillation in which the gradient of the labels and that of the teacher have a momentum each.

Zhao, Cui, Song and Liang, "DOT: A distillation-oriented trainer", ICCV 2023.

Family: training
Loss: 0.1 · CE + 0.9 · T² · KL(softmax(z^t / T) ‖ softmax(z / T)), T = 4, with momentum μ − Δ for the CE and μ + Δ for the KL
Source: mdistiller (engine/dot.py)
Choice: the momenta also change how far a step goes: at μ = 0.9 and Δ = 0.075 the CE counts 0.57 times and the KL 4 times as
    much as in SGD. The control `kd_dot_weights` is KD with weights in that ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdbench.method import Update
from kdbench.methods.kd import KD


class SeparateMomenta(torch.optim.Optimizer):
    """SGD with a buffer for each of several gradients: v_i ← μ_i v_i + g_i for each i, and θ ← θ − η Σ_i v_i.

    The first buffers are the gradients. There is no Nesterov form.

    Args:
        momenta: μ_i of each gradient.
        alone: momentum for a parameter that one gradient alone reaches.
        weight_decay: λ, for λθ that is added to one of the gradients.
        decayed: place of that gradient. Its buffer takes λθ after the buffers before it have moved θ.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        momenta: Sequence[float],
        alone: float,
        weight_decay: float,
        decayed: int = 0,
    ):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._momenta, self._alone, self._decayed = tuple(momenta), alone, decayed

    @torch.no_grad()
    def step(self, *gradients: Sequence[Tensor | None]) -> None:  # type: ignore[override]
        """Move the parameters.

        Args:
            gradients: as many as there are momenta, each with one entry for each parameter; None where it is not reached.
        """
        (group,) = self.param_groups
        reached_by = [sum(part is not None for part in parts) for parts in zip(*gradients, strict=True)]
        for number, (gradient, momentum) in enumerate(zip(gradients, self._momenta, strict=True)):
            entries = list(zip(group["params"], gradient, reached_by, strict=True))
            together = [(p, g) for p, g, count in entries if g is not None and count > 1]
            single = [(p, g) for p, g, count in entries if g is not None and count == 1]
            for reached, factor in ((together, momentum), (single, self._alone)):
                if reached:
                    self._move(number, factor, reached)

    def _move(self, number: int, momentum: float, reached: Sequence[tuple[Tensor, Tensor]]) -> None:
        (group,) = self.param_groups
        parameters, gradients = [p for p, _ in reached], [g for _, g in reached]
        if number == self._decayed:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        for parameter in parameters:
            if f"buffer {number}" not in self.state[parameter]:
                self.state[parameter][f"buffer {number}"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter][f"buffer {number}"] for parameter in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        torch._foreach_add_(parameters, buffers, alpha=-group["lr"])


class DOT(KD):  # type: ignore[misc]  # mypy does not look into methods by their module
    """The terms of knowledge distillation, trained with `SeparateMomenta`.

    Args:
        delta: Δ, by which the momentum of the distillation is above that of the recipe, and that of the cross-entropy below it.
    """

    delta: float

    def optimisers(self, parameters: list[nn.Parameter], settings: Any) -> dict[str, torch.optim.Optimizer]:
        momenta = settings.momentum - self.delta, settings.momentum + self.delta
        return {
            "dot": SeparateMomenta(parameters, settings.lr, momenta, settings.momentum, settings.weight_decay),
        }

    def update(self, terms: Mapping[str, Tensor], update: Update) -> None:
        task, distilled = update.gradient(terms["ce"], keep_graph=True), update.gradient(terms["kd"])
        update.clip(task, distilled)
        cast(SeparateMomenta, update.optimisers["dot"]).step(task, distilled)
