"""RC (review and correction): KD, and KD from the student's own logits with the label's raised.

Sun, Chen, Lyu, Chen, Chen and Wang, "Knowledge distillation with refined logits", ICCV 2025, who compare their method with it.

Family: logit
Loss: CE + T² · KL(softmax(zᵗ / T) ‖ softmax(z / T)) + 0.1 · T² · KL(softmax(z̃ / T) ‖ softmax(z / T)),
    z̃ = z with z_y + max z in place of z_y, without gradient
Source: RLD (mdistiller/distillers/RC.py)
Choice: the largest logit is added as it is, as in the source. So an offset of the logits matters, and where the largest is
    negative, the label's logit falls.
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, distillation


def corrected(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, K), without gradient, with the largest added to that of the label (B,)."""
    logits = logits.detach()
    return logits.scatter_add(1, labels.unsqueeze(1), logits.amax(dim=1, keepdim=True))


class RC(Method):
    """Cross-entropy, KD from the teacher, and KD from the student's own `corrected` logits.

    Args:
        kd_weight: of KD from the teacher.
        correction_weight: of KD from the corrected logits.
        temperature: of both.
    """

    needs_teacher = True

    kd_weight: float
    correction_weight: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        correction = distillation(logits, corrected(logits, batch.labels), self.temperature)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * distillation(logits, target, self.temperature),
            "correction": self.correction_weight * correction,
        }
