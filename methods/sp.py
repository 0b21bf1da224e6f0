"""Similarity-preserving distillation: images that look alike to the teacher look alike to the student.

Tung and Mori, "Similarity-preserving knowledge distillation", ICCV 2019.

Family: relation
Loss: CE + 3000 · ‖R(F_S) − R(F_S^t)‖²_F / B², R(F) = F Fᵀ of the flattened images (B × B), each row L2-normalised
Source: RepDistiller (distiller_zoo/SP.py), which the author has checked
Fault: the gradient at an image whose map is zero is of the order of 1e11 in the original; here it has none through its row.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import normalised


def similarities(x: Tensor) -> Tensor:
    """Inner products of all pairs of images (B, B), each row of length 1; `x` (B, …) is flattened. An image of zeros has zeros."""
    rows = x.flatten(1)
    return normalised(rows @ rows.T)


def similarity_loss(x: Tensor, target: Tensor) -> Tensor:
    """Squared difference of the similarities of student and teacher, averaged over all B² pairs.

    Args:
        x, target: (B, C, H, W) and (B, C', H', W'); neither widths nor resolutions need to agree.
    """
    return F.mse_loss(similarities(x), similarities(target))


class SP(Method):
    """Cross-entropy and `similarity_loss` of the deepest maps.

    Args:
        similarity_weight: of `similarity_loss`; it belongs to 64 images a step, because the loss falls with their number.
        kd_weight, temperature: of knowledge distillation on the logits.
    """

    needs_teacher = True

    similarity_weight: float
    kd_weight: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "logits", "stages")
        with full_precision(batch.images.device):
            # The pairs are those of the whole batch, on however many GPUs it lies.
            x, target = (batch.share.gather(at_least_float32(each.stages[-1])) for each in (out, taught))
            similarity = similarity_loss(x, target)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "similarity": self.similarity_weight * similarity,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
