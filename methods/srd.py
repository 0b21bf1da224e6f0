"""SRD: a simple recipe, the student's projected feature is normalised over the batch and drawn to the teacher's.

Miles and Mikolajczyk, "Understanding the role of the projector in knowledge distillation", AAAI 2024.

Family: feature
Loss: CE + KL(p^t ‖ p) + 2 · ln Σ_bd |ê_bd − ĝ^t_bd|⁴; ê and ĝ^t are L g and g^t after batch normalisation without scale and
    shift, ε = 1e-4
Source: torchdistill, losses/mid_level.py (SRDLoss); Simple-Recipe-Distillation (authors' code)
Choice: weights are those of ImageNet, the only data set that the authors tried. The sum over the batch is inside the
    logarithm, so the batch size adds a constant and does not change the gradient's scale.
Choice: the features are normalised with the statistics of the batch, in evaluation too, and none are kept.
Choice: a student that is equal to the teacher has a finite value (the logarithm of the smallest number), without a gradient.
Fault: the authors' first release does not train L. Here it is trained, as in their correction.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision, kd_term

EPSILON = 1e-4  # of the batch normalisation


def standardised(x: Tensor) -> Tensor:
    """Features (B, D) after batch normalisation without scale and shift: mean 0 and biased variance 1 in each channel."""
    centred = x - x.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + EPSILON).sqrt()


def srd_loss(features: Tensor, target: Tensor, exponent: float) -> Tensor:
    """Natural logarithm of the absolute differences of two features (B, D), to a power, summed over the batch."""
    total = ((features - target).abs() ** exponent).sum()
    return total.clamp(min=torch.finfo(total.dtype).tiny).log()


class SRD(Method):
    """Cross-entropy, distillation, and `srd_loss` of the standardised features of student and teacher.

    Args:
        weight: weight of `srd_loss`.
        exponent: the power in `srd_loss`.
        kd_weight, temperature: weight and temperature of the distillation term; 0: without it.
    """

    needs_teacher = True

    weight: float
    exponent: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        # Without a bias, which the normalisation would remove.
        self.projector = nn.Linear(self.student.fc.in_features, self.teacher.fc.in_features, bias=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "pooled", "logits")
        with full_precision(batch.images.device):
            features, target = (batch.share.gather(at_least_float32(x.pooled)) for x in (out, taught))
            loss = srd_loss(standardised(self.projector(features)), standardised(target), self.exponent)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "srd": self.weight * loss,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
