"""BKL: forward and reverse KL in one sum over the classes, each class divided by a power of its probabilities.

"Revisiting the functional properties of KL divergence in KD", 2025 (repository CKeyZhang/BKL).

Family: logit
Loss: 0.1 · CE + 0.9 · T² · Σ_k (a · p log(p / q) + (1 − a) · q log(q / p)) / ((p² + q²)^((1 − b) / 2) + 1e-12),
    p = softmax(zᵗ / T), q = softmax(z / T)
Source: BKL (CIFAR100/mdistiller/distillers/KD.py)
Choice: the denominator has a gradient, as in the source.
Choice: the default a is ½, the only one for which z = zᵗ is a minimum if b < 1. With others the loss may be negative.
Choice: a = 0, b = 1 is reverse KL, T² · KL(softmax(z / T) ‖ softmax(zᵗ / T)), the variant reverse_kl; a = b = 1 is KD.
Fault: the class of the source never sets a and b, and stops with an error; its function is followed here.
Fault: the gradient of (p² + q²)^((1 − b) / 2) is not finite where both underflow; here it is computed from the logarithms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32

EPSILON = 1e-12
"""Added to the denominator."""


def bkl_loss(logits: Tensor, target_logits: Tensor, alpha: float, beta: float) -> Tensor:
    """Balanced KL of softmax(logits) and softmax(target), summed over the classes and averaged over the batch, without T².

    Args:
        logits, target_logits: (B, K) of student and teacher, over the temperature.
        alpha: a, share of the forward KL.
        beta: b; 1 makes all denominators 1.
    """
    log_p, log_q = (F.log_softmax(at_least_float32(each), dim=1) for each in (target_logits, logits))
    difference = log_p - log_q
    both = (alpha * log_p.exp() - (1 - alpha) * log_q.exp()) * difference
    scale = ((1 - beta) / 2 * torch.logaddexp(2 * log_p, 2 * log_q)).exp()
    return (both / (scale + EPSILON)).sum(dim=1).mean()


class BKL(Method):
    """Cross-entropy, and T² · `bkl_loss`.

    Args:
        ce_weight: of the cross-entropy.
        kd_weight: of T² · `bkl_loss`.
        alpha, beta: a and b.
        temperature: T.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    alpha: float
    beta: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        loss = bkl_loss(logits / self.temperature, target / self.temperature, self.alpha, self.beta)
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "bkl": self.kd_weight * self.temperature**2 * loss,
        }
