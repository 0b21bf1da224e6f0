"""MLKD in one view: what multi-level logit distillation computes of the weak view, on the images of all other methods.

Jin, Wang and Lin, "Multi-level logit distillation", CVPR 2023, as run by Sun, Chen, Lyu, Chen, Chen and Wang, "Knowledge
distillation with refined logits", ICCV 2025.

Family: logit
Loss: 0.1 · CE + 0.9 · (m · Σ_τ τ² KL_τ + m_c · Σ_τ ‖PᵀP − PᵗᵀPᵗ‖² / K + m · Σ_τ ‖PPᵀ − PᵗPᵗᵀ‖² / B), P = softmax(z / τ),
    τ of 4, 3, 5, 2, 6
Source: zju-SWJ/RLD, distillers/MLKD_NOAUG.py
Choice: `mask` and `reference_batch` are those of `mlkd`.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, full_precision
from kdbench.methods.mlkd import divergences, masked_mean, relation_losses, unsure


class MLKDOneView(Method):
    """Cross-entropy, divergences from the teacher at several temperatures, and relations between classes and images.

    Args:
        ce_weight: of the cross-entropy.
        kd_weight: of all other terms.
        temperatures: of the divergences and relations.
        mask: how the share of images and classes enters that the teacher is unsure of.
        reference_batch: images for which the weights of the relations were chosen; 0: not scaled.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    temperatures: tuple[float, ...]
    mask: Literal["share", "image", "off"]
    reference_batch: int

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, target = self.student(batch.images), self.teach(batch, "logits").logits
        with full_precision(batch.images.device):
            z, t = (batch.share.gather(at_least_float32(each)) for each in (out, target))
            classes, images = relation_losses(z, t, self.temperatures, self.mask, self.reference_batch)
            kd = masked_mean(divergences(z, t, self.temperatures).sum(dim=0), unsure(t), self.mask)
        return {
            "ce": self.ce_weight * self.cross_entropy(out, batch.labels),
            "kd": self.kd_weight * kd,
            "classes": self.kd_weight * classes,
            "images": self.kd_weight * images,
        }
