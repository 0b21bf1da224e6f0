"""Mean teacher: the student agrees with a moving average of its own weights.

Tarvainen and Valpola, "Mean teachers are better role models", NIPS 2017.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32


class EMA(Method):
    """Cross-entropy, and the mean squared difference from the softmax of the average, which grows with the training.

    Args:
        consistency_weight: of the difference, at the end of training.
        decay: share of the average that stays at each step.
    """

    consistency_weight: float
    decay: float

    def setup(self) -> None:
        self.average = copy.deepcopy(self.student).requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        with torch.no_grad():
            target = self.average.eval()(batch.images)
        p, q = (at_least_float32(z).softmax(dim=1) for z in (logits, target))
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "consistency": batch.progress * self.consistency_weight * F.mse_loss(p, q),
        }

    def after_step(self, batch: Batch) -> None:
        for average, now in zip(self.average.state_dict().values(), self.student.state_dict().values(), strict=True):
            # Counts of batch normalisation are integers.
            average.lerp_(now, 1 - self.decay) if average.is_floating_point() else average.copy_(now)

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        return {"average": self.average(images)}
