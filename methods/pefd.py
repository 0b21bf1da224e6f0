"""PEFD: an ensemble of projectors carries the student's feature to the teacher's.

Chen, Wang, Liu, Xu, de Hoog and Huang, "Improved feature distillation via projector ensemble", NeurIPS 2022.

Family: feature
Loss: CE + 25 · (1 − mean_b cos(1/3 · Σ_q ReLU(L_q g), g^t)), L_1 … L_3 linear with bias
Source: PEFD (authors' code), helper/loops.py
Choice: where every ReLU of an image is 0 the cosine is 0, without a gradient. The authors' code gives NaN there, which is
    why no parameter chooses it.
Fault: the authors' code builds a fourth projector, which it neither uses nor trains. It is left out.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import normalised


def direction_loss(features: Tensor, target: Tensor) -> Tensor:
    """1 − cosine of two features (B, D), averaged over the batch; 1 for a feature of zeros."""
    return 1 - (normalised(features) * normalised(target)).sum(dim=1).mean()


class Projectors(nn.Module):
    """The mean of several projectors from the student's width to the teacher's, each linear with a ReLU.

    Args:
        width, target: widths of the pooled features of student and teacher.
        count: number of projectors.
    """

    def __init__(self, width: int, target: int, count: int):
        super().__init__()
        # One layer as wide as all of them: its initial weights depend on `width` alone, so they are independent draws.
        self.linear = nn.Linear(width, count * target)
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, target) of features (B, width)."""
        with full_precision(x.device):
            projected: Tensor = F.relu(self.linear(at_least_float32(x)))
            return projected.view(len(x), self.count, -1).mean(dim=1)


class PEFD(Method):
    """Cross-entropy, and `direction_loss` of the student's projected pooled feature.

    Args:
        weight: weight of `direction_loss`.
        projectors: number of projectors.
        kd_weight, temperature: weight and temperature of an additional distillation term; 0: without it.
    """

    needs_teacher = True

    weight: float
    projectors: int
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        if self.projectors < 1:
            raise RunError(f"PEFD.projectors is {self.projectors}; it must be 1 or more")
        self.ensemble = Projectors(self.student.fc.in_features, self.teacher.fc.in_features, self.projectors)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "pooled", "logits")
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "pefd": self.weight * direction_loss(self.ensemble(out.pooled), at_least_float32(taught.pooled)),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
