"""CC: correlation congruence, the student learns how the images of a batch correlate.

Peng, Jin, Liu, Li, Wu, Liu, Zhou and Zhang, "Correlation congruence for knowledge distillation", ICCV 2019.

Family: relation
Loss: CE + 0.02 · 1/(B − 1) · Σ_i Σ_d Δ_id · Δ_(i+1)d, Δ = |e − e^t|, e and e^t trained linear embeddings of g and g^t
Source: RepDistiller, distiller_zoo/CC.py (from the authors' code); Knowledge-Distillation-Zoo, kd_losses/cc.py ("kernel")
Choice: `form` is "neighbours" by default, because published results on CIFAR-100 were made with it. "kernel" is the loss of
    the paper: the mean squared difference of two B × B matrices of κ(a, b) = e^(−2γ) Σ_p (2γ)^p / p! · (a · b)^p, between
    normalised features, without embeddings. It needs another `weight`: 100 there.
Choice: a feature of zeros has similarity 0 to the others under "kernel", and no gradient.
Fault: "neighbours" is not the loss of the paper. It depends on the order of the images, and both embeddings can shrink it
    to 0. It is kept as published.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import normalised


def neighbours_loss(embedding: Tensor, target: Tensor) -> Tensor:
    """Product of the absolute differences of images that follow one another, summed over D, averaged over the B − 1 pairs.

    Args:
        embedding: (B, D), of the student.
        target: (B, D), of the teacher.
    """
    difference = (embedding - target).abs()
    return (difference[:-1] * difference[1:]).sum() / max(len(difference) - 1, 1)


def correlations(features: Tensor, gamma: float, order: int) -> Tensor:
    """Taylor series of the Gaussian kernel between normalised features (B, D), up to `order`; result (B, B)."""
    cosines = normalised(features) @ normalised(features).T
    terms = [(2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(dim=0)


def kernel_loss(features: Tensor, target: Tensor, gamma: float, order: int) -> Tensor:
    """Mean squared difference of the `correlations` of student (B, D) and teacher (B, D')."""
    return F.mse_loss(correlations(features, gamma, order), correlations(target, gamma, order))


class CC(Method):
    """Cross-entropy, and a loss of correlations between the pooled features of a batch.

    Args:
        weight: weight of that loss.
        form: "neighbours" for `neighbours_loss` of linear embeddings, "kernel" for `kernel_loss`.
        embedding_dim: D, width of both embeddings ("neighbours").
        gamma, order: of the kernel ("kernel").
        kd_weight, temperature: weight and temperature of an additional distillation term; 0: without it.
    """

    needs_teacher = True

    weight: float
    form: Literal["neighbours", "kernel"]
    embedding_dim: int
    gamma: float
    order: int
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        if self.form == "neighbours":
            self.student_embedding = nn.Linear(self.student.fc.in_features, self.embedding_dim)
            self.teacher_embedding = nn.Linear(self.teacher.fc.in_features, self.embedding_dim)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "pooled", "logits")
        with full_precision(batch.images.device):
            # In the order of the whole batch, of which an image's neighbours are.
            features, target = (batch.share.gather(at_least_float32(x.pooled)) for x in (out, taught))
            if self.form == "neighbours":
                loss = neighbours_loss(self.student_embedding(features), self.teacher_embedding(target))
            else:
                loss = kernel_loss(features, target, self.gamma, self.order)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "cc": self.weight * loss,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
