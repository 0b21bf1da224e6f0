"""Focal loss: images that the student is sure of count less.

Lin, Goyal, Girshick, He and Dollár, "Focal loss for dense object detection", ICCV 2017.

Family: regulariser
Loss: −(1 − p_y)^γ · ln p_y
Source: the formula; Self-KD-Lib (methods/focal_loss.py)
Choice: there are no weights of classes, which the paper has for the background of detection
Choice: the recipe's label smoothing does not apply, because the loss reads the probability of one class
Fault: Self-KD-Lib takes the logarithm of a softmax, which is −∞ for very wrong images; here it is a log-softmax
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32

EPSILON = 1e-12
"""Least value of 1 − p_y, whose power then has a finite gradient also for γ < 1."""


def focal_loss(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """−(1 − p_y)^γ · ln p_y, averaged over the batch; logits (B, K), labels (B,)."""
    log_p = F.log_softmax(at_least_float32(logits), dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    missing = (-log_p.expm1()).clamp(min=EPSILON)
    return -(missing**gamma * log_p).mean()


class Focal(Method):
    """`focal_loss` alone.

    Args:
        gamma: γ; 0 is the cross-entropy.
    """

    gamma: float

    def setup(self) -> None:
        if self.gamma < 0:
            raise RunError(f"Focal.gamma={self.gamma:g} must be at least 0 (0: the cross-entropy)")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"focal": focal_loss(self.student(batch.images), batch.labels, self.gamma)}
