"""Knowledge distillation of standardised logits: the student learns the shape of the teacher's logits, not their scale.

Sun, Ren, Li, Wang and Cao, "Logit standardization in knowledge distillation", CVPR 2024.

Family: logit
Base: kd
Loss: 0.1 · CE + 9 · T² · KL(softmax(n(zᵗ) / T) ‖ softmax(n(z) / T)), n(x) = (x − mean x) / (std x + 1e-7)
Source: the authors' code, distillers/KD.py
Choice: one temperature of 2 and one weight of 9 are the defaults for all pairs of networks, where the authors choose 2 to 4 and
    1 to 12 for each pair; `temperature` and `kd_weight` give the others.
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, distillation
from kdbench.method.logits import standardised


class LSKD(Method):
    """Cross-entropy of the student's own logits, and distillation of the standardised logits of both networks.

    Args:
        ce_weight, kd_weight: of the two terms.
        temperature: T, in standard deviations of the logits.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        kd = distillation(standardised(logits), standardised(target), self.temperature)
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * kd,
        }
