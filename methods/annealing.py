"""Annealing KD: the student first imitates logits of the teacher that grow from flat to full size, then learns from labels alone.

Jafari, Rezagholizadeh, Sharma and Ghodsi, "Annealing knowledge distillation", EACL 2021.

Family: training
Loss: first mean over b and k of (z − (τ / 10) · z^t)², τ = 1, 2, … 10 in equal stretches, without labels; then CE alone
Source: the authors' code for image classification (KD-NLP, AnnealingKD)
Choice: `share` is ⅔, 200 of the authors' 300 epochs, so that both phases together have the budget of other methods
Choice: `restart` is True by default: as in the authors' code, the second phase has a schedule of its own, here the recipe's from
    its beginning, and a fresh optimiser. With False one schedule goes over both.
Choice: the second phase begins with the last weights of the first; the authors take the best ones on the test set
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, Phase, RunError, at_least_float32


def annealing_loss(logits: Tensor, target_logits: Tensor, temperature: int, max_temperature: int) -> Tensor:
    """Mean of (logits − τ / τ_max · target logits)² over images and classes; logits (B, K), τ the `temperature`."""
    target = at_least_float32(target_logits) * (temperature / max_temperature)
    return F.mse_loss(at_least_float32(logits), target)


def temperature_at(progress: float, max_temperature: int) -> int:
    """τ from 1 to τ_max, each for an equal share of the phase; `progress` from 0 to below 1."""
    return min(int(progress * max_temperature) + 1, max_temperature)


class Annealing(Method):
    """`annealing_loss` for a share of the training, then cross-entropy, for which the teacher is not asked.

    Args:
        share: of the budget for the first phase.
        max_temperature: τ_max.
        restart: give the second phase a schedule and an optimiser of its own.
    """

    needs_teacher = True

    share: float
    max_temperature: int
    restart: bool

    def setup(self) -> None:
        if not 0 < self.share < 1:
            raise RunError(f"Annealing.share={self.share:g} must be above 0 and below 1, a share of the budget")
        if self.max_temperature < 1:
            raise RunError(f"Annealing.max_temperature={self.max_temperature} must be 1 or more")

    def phases(self) -> Sequence[Phase]:
        if not self.restart:
            return (Phase(),)
        return Phase("annealing", self.share, self.imitation), Phase("labels", losses=self.labels_alone)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if batch.progress < self.share:
            return self._imitation(batch, batch.progress / self.share)
        return self.labels_alone(batch)

    def imitation(self, batch: Batch) -> dict[str, Tensor]:
        return self._imitation(batch, batch.phase_progress)

    def labels_alone(self, batch: Batch) -> dict[str, Tensor]:
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}

    def _imitation(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        temperature = temperature_at(progress, self.max_temperature)
        return {"annealing": annealing_loss(logits, target, temperature, self.max_temperature)}
