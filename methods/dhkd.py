"""Dual-head distillation: a second classifier learns from the teacher, and its gradient may not oppose the task's.

Yang, Zong, Huang, Feng and An, "Dual-head knowledge distillation", arXiv 2411.08937, 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, Update, at_least_float32, full_precision


def binary_kl(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL between the sigmoids of each class, both at T, summed over classes, batch mean; logits (B, K)."""
    z, t = (at_least_float32(x) / temperature for x in (logits, teacher_logits))
    of_class = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(z)) + (-t).sigmoid() * (
        F.logsigmoid(-t) - F.logsigmoid(-z)
    )
    return temperature**2 * of_class.sum(dim=1).mean()


def binary_kl_norm(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL((½, ½) ‖ sigmoid(±(logits − teacher logits) / T)), summed over classes, batch mean; logits (B, K)."""
    return binary_kl((at_least_float32(logits) - teacher_logits), torch.zeros_like(teacher_logits), temperature)


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


class DHKD(Method):
    """Cross-entropy of the student's classifier, and `binary_kl_norm` of a second one, which is dropped after training."""

    needs_teacher = True

    kd_weight: float
    temperature: float

    def setup(self) -> None:
        self.second = nn.Linear(self.student.fc.in_features, self.info.classes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, target = self.student(batch.images, features=True), self.teach(batch, "logits").logits
        with full_precision(batch.images.device):
            second = self.second(out.pooled)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "kd": self.kd_weight * binary_kl_norm(second, target, self.temperature),
        }

    def update(self, terms: Mapping[str, Tensor], update: Update) -> None:
        task, distilled = update.gradient(terms["ce"], keep_graph=True), update.gradient(terms["kd"])
        update.set_gradient(task, aligned(distilled, task))
        update.step()
