"""PKT: the student learns the teacher's similarities between images, as a distribution over the images of the batch.

Passalis and Tefas, "Learning deep representations with probabilistic knowledge transfer", ECCV 2018.

Family: relation
Loss: CE + 30000 · mean_ij p^t_ij · ln((p^t_ij + ε) / (p_ij + ε)), p_ij = c_ij / Σ_k c_ik, c = (ĝ ĝᵀ + 1) / 2,
    ĝ = g / (‖g‖ + ε), ε = 1e-7
Source: RepDistiller, distiller_zoo/PKT.py
Choice: a feature of zeros, or one shorter than ε, has the value of the formula and no gradient. The other reading,
    whose gradient is NaN, is not offered.
Fault: the original replaces the NaN of a feature of zeros in the value only; its gradient stays NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, full_precision, kd_term

EPSILON = 1e-7  # added to norms and to probabilities


def similarities(features: Tensor) -> Tensor:
    """Share of each image in the similarity of all images to image i, row i; features (B, D), result (B, B).

    The similarity is the cosine, moved to 0 … 1. An image counts as similar to itself.
    """
    norm = torch.linalg.vector_norm(features.detach(), dim=1, keepdim=True)
    small = norm < EPSILON
    # The norm of a row of zeros has a NaN as its gradient, even where the result is not used.
    safe = torch.linalg.vector_norm(features.masked_fill(small, 1.0), dim=1, keepdim=True)
    unit = torch.where(small, features.detach() / (norm + EPSILON), features / (safe + EPSILON))
    cosines = (unit @ unit.T + 1) / 2
    return cosines / cosines.sum(dim=1, keepdim=True)


def pkt_loss(features: Tensor, target: Tensor) -> Tensor:
    """Divergence of the student's similarities from the teacher's, averaged over all B² pairs.

    Args:
        features: (B, D), of the student.
        target: (B, D'), of the teacher.
    """
    ours, theirs = similarities(features), similarities(target)
    return (theirs * ((theirs + EPSILON).log() - (ours + EPSILON).log())).mean()


class PKT(Method):
    """Cross-entropy, and `pkt_loss` on the pooled features of student and teacher.

    Args:
        weight: weight of `pkt_loss`; it belongs to batches of 64 images, as the loss is of the order of 1 / B.
        kd_weight, temperature: weight and temperature of an additional distillation term; 0: without it.
    """

    needs_teacher = True

    weight: float
    kd_weight: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "pooled", "logits")
        with full_precision(batch.images.device):
            features, target = (batch.share.gather(at_least_float32(x.pooled)) for x in (out, taught))
            loss = pkt_loss(features, target)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "pkt": self.weight * loss,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
