"""SLD: in two views, the student imitates logits in which the label and a wrong maximum have changed places.

Limantoro et al., "Swapped logit distillation via bi-level teacher alignment", Multimedia Systems 2025.

Family: logit
Loss: 0.1 · (CE(z_w) + CE(z_s)) + 0.9 · Σ_v Σ_T T² (KL_T(swap(zᵗ_v) ‖ z_v) + [e ≥ 151] KL_T(swap(z_v) ‖ z_v)), T of 1 … 6,
    of the weak view (w, the recipe's) and the strong one (s)
Source: the authors' code (StephenEkaputra/Swapped-Logit-Distillation, distillers/SLD.py)
Choice: the student's own swapped logits are a target without gradient; SLD.detach=False is the authors' code, in which part of
    the gradient passes through the target.
Choice: the student's own target joins from epoch 151 on, as in the authors' code, also where the training is shorter; with 100
    epochs, as on ImageNet, it never does. SLD.student_target_epoch moves it.
Choice: the views pass through the student one after the other, as in the authors' code, so that batch normalisation sees one of
    them at a time; the strong view is that of `Strong.*`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdbench.method import Batch, Method
from kdbench.methods.mlkd import divergences
from kdbench.methods.swap import swapped


def swapped_divergence(logits: Tensor, target_logits: Tensor, labels: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Σ_T T² · KL_T from the `swapped` target, averaged over the images.

    Args:
        logits, target_logits: (B, K); detach the target where it must not learn.
        labels: (B,) classes.
    """
    loss: Tensor = divergences(logits, swapped(target_logits, labels), temperatures).sum(dim=0).mean()
    return loss


class SLD(Method):
    """Cross-entropies of both views, and `swapped_divergence` from the teacher and later from the student itself.

    Args:
        ce_weight, kd_weight: of the cross-entropies' sum and of all divergences.
        temperatures: of the divergences.
        student_target_epoch: first epoch in which the student's own swapped logits are a target too.
        detach: keep the gradient out of that target.
    """

    needs_teacher = True
    views = ("recipe", "strong")

    ce_weight: float
    kd_weight: float
    temperatures: tuple[float, ...]
    student_target_epoch: int
    detach: bool

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = torch.cat([self.student(images) for images in batch.views()])
        target = self.teach(batch, "logits").logits
        kd = swapped_divergence(logits, target, batch.labels, self.temperatures)
        if batch.epoch >= self.student_target_epoch:
            own = logits.detach() if self.detach else logits
            kd = kd + swapped_divergence(logits, own, batch.labels, self.temperatures)
        # Sums over the views are twice the means over all images.
        return {
            "ce": 2 * self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": 2 * self.kd_weight * kd,
        }
