"""EA-KD: KD in which images weigh more whose softened predictions have a high entropy.

Su, Tseng, Pu, Zhao, Yang, Chen and Lee, "EA-KD: entropy-based adaptive knowledge distillation", ICCV 2025.

Family: logit
Loss: 0.1 · CE + 0.9 · mean_i w_i · T² · KL(softmax(zᵗ_i / T) ‖ softmax(z_i / T)), w = ½ · (Hᵗ + Hᵗ · H / log K), without gradient,
    H and Hᵗ entropies of softmax(z / T') and softmax(zᵗ / T')
Source: EA-KD (distillers/KD.py)
Choice: the weights are not normalised, as in the source. They are about 2 to 4 on CIFAR-100, so KD weighs more than in kd.
Fault: the source divides by 100 on CIFAR-100, and by log 1000 on ImageNet: a logarithm is missing, and the student's entropy
    hardly matters. EAKD.entropy_bound=100.0 is the source on CIFAR-100.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32
from kdbench.method.logits import divergence_of_each

EPSILON = 1e-10
"""Added to a probability before its logarithm."""


def entropy(logits: Tensor, temperature: float) -> Tensor:
    """Entropy in nats of softmax(logits / T) of each image; (B, K) to (B,)."""
    p = F.softmax(at_least_float32(logits) / temperature, dim=1)
    return -(p * (p + EPSILON).log()).sum(dim=1)


def weights(logits: Tensor, target_logits: Tensor, temperature: float, bound: float | None = None) -> Tensor:
    """Weight of each image, (B,), without gradient: between half the teacher's entropy and all of it.

    Args:
        logits, target_logits: (B, K) of student and teacher.
        temperature: T', of the entropies.
        bound: entropy by which the student's is divided; None: log K, the largest one.
    """
    ours, theirs = (entropy(each.detach(), temperature) for each in (logits, target_logits))
    return (theirs + theirs * ours / (bound or math.log(logits.shape[1]))) / 2


class EAKD(Method):
    """Cross-entropy, and KD with `weights` of the images.

    Args:
        ce_weight: of the cross-entropy.
        kd_weight: of the weighted KD.
        temperature: T, of KD.
        entropy_temperature: T', of the entropies.
        entropy_bound: entropy by which the student's is divided; None: log K.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    temperature: float
    entropy_temperature: float
    entropy_bound: float | None

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        weight = weights(logits, target, self.entropy_temperature, self.entropy_bound)
        divergence = divergence_of_each(logits / self.temperature, target / self.temperature)
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "eakd": self.kd_weight * self.temperature**2 * (weight * divergence).mean(),
        }
