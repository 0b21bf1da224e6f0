"""ATS: the teacher's logit of the label is softened with one temperature, and its other logits with another.

Li, Fan, Song, Li, Li, Shao and Zhan, "Asymmetric temperature scaling makes larger networks teach well again", NeurIPS 2022.

Family: logit
Loss: 0.5 · CE + 0.5 · s² · mean_b(−Σ_k q_k · log softmax(z / s)_k), q = softmax(z^t_k / τ_k), τ_y = 4 and τ_k = 2 elsewhere, s = 1
Source: the authors' code (ATS-LargeKD, distill.py)
Choice: the two temperatures are 4 and 2; the authors choose each pair of networks' own from a grid, on the test set
Choice: `centred` is False by default, as in the authors' code: at unequal temperatures an offset of the teacher's logits changes
    the target. True takes out their mean first, for teachers of different origin.
Fault: the authors run the teacher with gradients, which nothing uses
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, soft_cross_entropy


def asymmetric_target(
    logits: Tensor, labels: Tensor, target_temperature: float, other_temperature: float, centred: bool
) -> Tensor:
    """Class probabilities (B, K) of logits (B, K), the label's over one temperature and the others over another.

    Args:
        labels: (B,).
        target_temperature, other_temperature: τ of the label's logit and τ of the others.
        centred: subtract the mean of each row first.
    """
    logits = at_least_float32(logits)
    if centred:
        logits = logits - logits.mean(dim=1, keepdim=True)
    is_label = torch.zeros_like(logits, dtype=torch.bool).scatter(1, labels.unsqueeze(1), True)
    return torch.where(is_label, logits / target_temperature, logits / other_temperature).softmax(dim=1)


class ATS(Method):
    """Cross-entropy, and cross-entropy with `asymmetric_target`, whose entropy is not subtracted.

    Args:
        ce_weight, kd_weight: 1 − λ and λ in the paper.
        target_temperature, other_temperature: of the teacher's logit of the label, and of its others.
        student_temperature: s.
        centred: take out the mean of the teacher's logits first.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    target_temperature: float
    other_temperature: float
    student_temperature: float
    centred: bool

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, taught = self.student(batch.images), self.teach(batch, "logits").logits
        target = asymmetric_target(taught, batch.labels, self.target_temperature, self.other_temperature, self.centred)
        soft = self.student_temperature**2 * soft_cross_entropy(logits / self.student_temperature, target)
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * soft,
        }
