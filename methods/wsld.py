"""WSLD: soft labels count less where the student does better on the true label than the teacher.

Zhou, Song, Chen, Zhou, Wang, Yuan and Zhang, "Rethinking soft labels for knowledge distillation: a bias-variance tradeoff
perspective", ICLR 2021.

Family: logit
Loss: CE + 2.25 · T² · mean_i w_i · CE(softmax(zᵗ_i / T), z_i / T), w_i = 1 − exp(−CE(z_i, y_i) / (CE(zᵗ_i, y_i) + 1e-7))
Source: the authors' code for ImageNet (knowledge_distiller.py); the weight and temperature for CIFAR-100 are those of cls_KD
Choice: the cross-entropies in w_i are those of the labels as they are, also where the recipe smooths them. The other
    reading is not offered.
Fault: the original has 1000 classes for all data sets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32

EPSILON = 1e-7  # added to the teacher's cross-entropy


def image_weights(logits: Tensor, target_logits: Tensor, labels: Tensor) -> Tensor:
    """Weight of the soft label of each image, (B,), from 0 to 1, without gradient: 0 where the student's cross-entropy is 0.

    Args:
        logits, target_logits: (B, K), of student and teacher.
        labels: (B,) classes.
    """
    with torch.no_grad():
        ours, theirs = (
            F.cross_entropy(at_least_float32(each), labels, reduction="none") for each in (logits, target_logits)
        )
        return -torch.expm1(-ours / (theirs + EPSILON))


def wsld_loss(logits: Tensor, target_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T² times the weighted soft cross-entropy, averaged over the batch; the entropy of the soft labels is not subtracted.

    Args:
        logits, target_logits: (B, K), of student and teacher.
        labels: (B,) classes.
    """
    target = (at_least_float32(target_logits) / temperature).softmax(dim=1)
    soft = -(target * (at_least_float32(logits) / temperature).log_softmax(dim=1)).sum(dim=1)
    return temperature**2 * (image_weights(logits, target_logits, labels) * soft).mean()


class WSLD(Method):
    """Cross-entropy and `wsld_loss`.

    Args:
        alpha: weight of `wsld_loss`.
        temperature: T.
    """

    needs_teacher = True

    alpha: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "wsld": self.alpha * wsld_loss(logits, target, batch.labels, self.temperature),
        }
