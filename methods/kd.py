"""Knowledge distillation: the student learns the teacher's softened class probabilities.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
"""

from __future__ import annotations

from torch import Tensor

from kdbench.backbones.backbone import Backbone
from kdbench.method.base import Batch, Info, Method
from kdbench.method.losses import distillation


class KD(Method):
    """Cross-entropy, and KL divergence from the teacher (`kdbench.method.losses.distillation`, with its factor T²).

    Args:
        ce_weight: of the cross-entropy with the true labels.
        kd_weight: of the divergence.
        temperature: T of both softmaxes.
    """

    needs_teacher = True

    def __init__(
        self,
        student: Backbone,
        teacher: Backbone | None,
        info: Info,
        *,
        ce_weight: float,
        kd_weight: float,
        temperature: float,
    ):
        super().__init__(student, teacher, info)
        self.ce_weight = ce_weight
        self.kd_weight = kd_weight
        self.temperature = temperature

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        target = self.teach(batch.images).logits
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * distillation(logits, target, self.temperature),
        }
