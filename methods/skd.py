"""Spherical KD: the student's logits get the scale of the teacher's before both losses, so that only their direction is learnt.

Guo, Chen, Hu, Zhu, He and Cai, "Reducing the teacher-student gap via spherical knowledge distillation", 2020.

Family: logit
Loss: (1 − α) · CE(z', y) + α · T² · KL(softmax(zᵗ / T) ‖ softmax(z' / T)), z' = z · std zᵗ / std z for each image
Source: the authors' code (skd_main.py)
Choice: `scale` is "teacher" as in the code, where z' has the standard deviation of the teacher's logits; with "constant" both
    networks' logits are standardised and multiplied by `constant`, as the authors' README describes.
Choice: α changes at 0.6 and 0.8 of the budget, which are epochs 60 and 80 of the authors' 100; `milestones` gives other shares.
Choice: 1e-7 is added to the student's deviation, which the original does not do; equal logits would be divided by 0. The other
    reading is not offered.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32, distillation
from kdbench.method.logits import standardised


def rescaled(logits: Tensor, target_logits: Tensor, constant: float | None = None) -> tuple[Tensor, Tensor]:
    """Logits (B, K) of student and teacher at one scale for each image.

    The student's are centred too, which neither a softmax nor a cross-entropy sees.

    Args:
        constant: standard deviation that both get; None: both get the teacher's.
    """
    target_logits = at_least_float32(target_logits)
    if constant is None:
        return standardised(logits) * target_logits.std(dim=1, keepdim=True), target_logits
    return constant * standardised(logits), constant * standardised(target_logits)


class SKD(Method):
    """Cross-entropy and distillation, both of the student's rescaled logits.

    Args:
        kd_weights: α, one for each part of the training; the cross-entropy has 1 − α.
        milestones: shares of the training at which the next α begins.
        temperature: T.
        scale: standard deviation of the logits: that of the "teacher" for each image, or a "constant".
        constant: its value then.
    """

    needs_teacher = True

    kd_weights: tuple[float, ...]
    milestones: tuple[float, ...]
    temperature: float
    scale: Literal["teacher", "constant"]
    constant: float

    def setup(self) -> None:
        if len(self.kd_weights) != len(self.milestones) + 1:
            raise RunError(
                f"SKD.kd_weights={self.kd_weights} must have one value more than SKD.milestones={self.milestones}"
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = rescaled(
            self.student(batch.images),
            self.teach(batch, "logits").logits,
            self.constant if self.scale == "constant" else None,
        )
        alpha = self.kd_weights[sum(batch.progress >= milestone for milestone in self.milestones)]
        return {
            "ce": (1 - alpha) * self.cross_entropy(logits, batch.labels),
            "kd": alpha * distillation(logits, target, self.temperature),
        }
