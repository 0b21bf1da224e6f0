"""ICKD: the channels of the student's deepest map are correlated as those of the teacher's are.

Liu, Huang, Lin, Xie, Wang, Chang and Liang, "Exploring inter-channel correlation for diversity-preserved knowledge
distillation", ICCV 2021.

Family: feature
Loss: CE + w / (B·C^t) · Σ_b ‖N(E_b) − N(F_b^t)‖²_F, E = BN(1×1 conv(F_S)), N(F) = F Fᵀ over the pixels, rows of length 1
Source: the authors' code for CIFAR-100 (ICKD-C)
Choice: the sum is divided by B once, as in the authors' code; torchdistill divides twice, which is `weight` divided by B
Fault: the authors' code also computes an embedding of the teacher's map and never uses it; there is none here
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import ConvBN, normalised


def correlations(x: Tensor) -> Tensor:
    """Products of the channels of a map (B, C, H, W) over its pixels, each row with L2 norm 1: (B, C, C).

    The rows of channels that are 0 everywhere are 0.
    """
    channels = at_least_float32(x).flatten(2)
    return normalised(channels @ channels.transpose(1, 2), dim=2)


def ickd_loss(embedded: Tensor, target: Tensor) -> Tensor:
    """Squared differences of `correlations`, summed over all pairs of channels, over B and C; resolutions may differ.

    Args:
        embedded: (B, C, H, W), of the student.
        target: (B, C, H', W'), of the teacher.
    """
    with full_precision(target.device):
        return (correlations(embedded) - correlations(target)).square().sum() / (len(target) * target.shape[1])


class ICKD(Method):
    """Cross-entropy and `ickd_loss` on the deepest maps, the student's adapted to the teacher's width.

    Args:
        weight: of the loss.
        kd_weight, temperature: of the KD term that comes in addition; none at weight 0.
    """

    needs_teacher = True

    weight: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        self.embedding = ConvBN(self.stage_shapes()[-1][0], self.stage_shapes(self.teacher)[-1][0])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "ickd": self.weight * ickd_loss(self.embedding(out.stages[-1]), taught.stages[-1]),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
