"""Knowledge distillation: the student learns the teacher's softened class probabilities.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.

Family: logit
Loss: α · CE + β · T² · KL(softmax(z^t / T) ‖ softmax(z / T))
Source: RepDistiller
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, distillation


class KD(Method):
    """Cross-entropy, and T² times the KL divergence from the teacher, both softened with the `temperature` T."""

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * distillation(logits, target, self.temperature),
        }
