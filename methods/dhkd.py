"""DHKD: a second classifier learns from the teacher, and its gradient may not oppose that of the labels.

Yang, Zong, Huang, Feng and An, "Dual-head knowledge distillation: enhancing logits utilization with an auxiliary head",
arXiv 2411.08937, 2024.

Family: training
Loss: CE(z, y) + T² · mean_b Σ_k KL((½, ½) ‖ (σ(δ_k), 1 − σ(δ_k))), δ = (z' − z^t) / T, z' of the second classifier, T = 2
Source: the authors' code (distiller_zoo/BinaryKLNorm.py, helper/optimizer.py, models/classifier.py)
Choice: `head` is "nonlinear" by default, as in the authors' command for CIFAR-100; "linear" is that for ImageNet
Choice: `align` is True by default, as in the authors' command for CIFAR-100: where the two gradients point apart, the
    distillation's loses its part along that of the labels. Their command for ImageNet adds the two as they are.
Choice: `form` is "difference" by default, the loss above; "binary" is the plain binary KL of each class, which the authors' code
    has as well
Fault: the authors clamp the sigmoid to [1e-8, 1 − 1e-8], which ends the gradient there; its logarithm needs no clamp
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, Update, at_least_float32, full_precision
from kdbench.method.connectors import dropout

HIDDEN, DROPPED = 200, 0.1
"""Width of the second classifier's hidden layer, and the share of it that is dropped in training."""


def binary_kl(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL between the sigmoids of each class, both at T, summed over classes, batch mean; logits (B, K)."""
    z, t = (at_least_float32(x) / temperature for x in (logits, teacher_logits))
    of_class = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(z)) + (-t).sigmoid() * (
        F.logsigmoid(-t) - F.logsigmoid(-z)
    )
    return temperature**2 * of_class.sum(dim=1).mean()


def binary_kl_norm(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL((½, ½) ‖ sigmoid(±(logits − teacher logits) / T)), summed over classes, batch mean; logits (B, K)."""
    difference = at_least_float32(logits) - at_least_float32(teacher_logits)
    return binary_kl(difference, torch.zeros_like(difference), temperature)


def aligned(gradient: Sequence[Tensor | None], task: Sequence[Tensor | None]) -> list[Tensor | None]:
    """`gradient` without its part along `task` where the two, each flattened over all parameters, point apart.

    Args:
        gradient, task: one entry for each parameter, None where it is not reached.
    """
    pairs = [(h, g) for h, g in zip(gradient, task, strict=True) if h is not None and g is not None]
    product = torch.stack([(h * g).sum() for h, g in pairs]).sum()
    square = torch.stack([g.square().sum() for _, g in pairs]).sum()
    factor = product.clamp(max=0) / square.clamp(min=torch.finfo(square.dtype).tiny)
    return [h if h is None or g is None else h - factor * g for h, g in zip(gradient, task, strict=True)]


class Head(nn.Module):
    """The second classifier, in float32.

    Args:
        width: of the pooled feature.
        classes: number of logits.
        hidden: one hidden layer, with drop-out, batch normalisation and ReLU; otherwise a linear layer alone.
    """

    def __init__(self, width: int, classes: int, *, hidden: bool):
        super().__init__()
        self.first = nn.Linear(width, HIDDEN) if hidden else None
        self.bn = nn.BatchNorm1d(HIDDEN) if hidden else None
        self.last = nn.Linear(HIDDEN if hidden else width, classes)

    def forward(self, pooled: Tensor, batch: Batch) -> Tensor:
        """Logits (B, K) of pooled features (B, D)."""
        with full_precision(pooled.device):
            x = at_least_float32(pooled)
            if self.first is not None and self.bn is not None:
                x = self.first(x)
                x = F.relu(self.bn(dropout(x, DROPPED, batch) if self.training else x))
            logits: Tensor = self.last(x)
            return logits


class DHKD(Method):
    """Cross-entropy of the student's classifier, and `binary_kl_norm` of a second one, which is dropped after training.

    Args:
        kd_weight, temperature: of the second classifier's loss.
        form: of that loss, `binary_kl_norm` for "difference" and `binary_kl` for "binary".
        head: the second classifier, with a hidden layer or without.
        align: take out of the distillation's gradient what opposes that of the cross-entropy.
    """

    needs_teacher = True

    kd_weight: float
    temperature: float
    form: Literal["difference", "binary"]
    head: Literal["nonlinear", "linear"]
    align: bool

    def setup(self) -> None:
        self.second = Head(self.student.fc.in_features, self.info.classes, hidden=self.head == "nonlinear")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, target = self.student(batch.images, features=True), self.teach(batch, "logits").logits
        loss = binary_kl_norm if self.form == "difference" else binary_kl
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "kd": self.kd_weight * loss(self.second(out.pooled, batch), target, self.temperature),
        }

    def update(self, terms: Mapping[str, Tensor], update: Update) -> None:
        if not self.align:
            return super().update(terms, update)
        task, distilled = update.gradient(terms["ce"], keep_graph=True), update.gradient(terms["kd"])
        update.set_gradient(task, aligned(distilled, task))
        update.step()
