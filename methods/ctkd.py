"""CTKD: the temperature is trained against the student, from a factor of 0 in the beginning to its full gradient reversed.

Z. Li, X. Li, Yang, Zhao, Song, Luo, J. Li and Yang, "Curriculum temperature for knowledge distillation", AAAI 2023.

Family: logit
Loss: 0.1 · CE + 0.9 · T² · KL(softmax(zᵗ / T) ‖ softmax(z / T)), T = 1 + 20 · sigmoid(θ), where the gradient of θ counts
    λ(e) = ½ (cos(π · min(e / 10, 1)) + 1) − 1 times; on DKD: CE + T² · (TCKD + 2 · NCKD)
Source: the authors' code (zhengli97/CTKD, models/temp_global.py, helper/loops.py)
Choice: T lies between 1 and 21 as in the authors' code, which its options and the paper call 1 to 20; CTKD.temperature_range=19.0
    is the latter.
Choice: one temperature for all images. The variant that predicts one for each image has no published network.
Choice: θ is trained as all other parameters are, with the recipe's weight decay, which pulls T towards 11, and counts in the
    norm of a recipe that clips gradients. Under AdamW it is decayed only where that recipe decays vectors.
Choice: `standardise` is off; on, both networks' logits are standardised before they are compared (`methods=ls_ctkd`).
Choice: on DKD (`methods=ctkd_dkd`) the warm-up is left out, as in the authors' code.
Fault: with today's PyTorch the original's gradient of θ on DKD is NaN, because it masks the label's class by −1000; here that
    class is left out.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method
from kdbench.method.logits import divergence_of_each, standardised
from kdbench.methods.dkd import decoupled


def reversal(epoch: int, epochs: int) -> float:
    """Factor λ(e) of the temperature's gradient: 0 before the first epoch, down to −1 from epoch `epochs` (cosine)."""
    return (math.cos(math.pi * min(epoch / epochs, 1.0)) + 1) / 2 - 1 if epochs else -1.0


def with_scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` itself, bit for bit, with `factor` times its gradient; at a negative factor descent on a loss is ascent for `x`."""
    return x.detach() + factor * (x - x.detach())


class CTKD(Method):
    """Cross-entropy, and a divergence from the teacher at a temperature that is trained to raise it.

    Args:
        ce_weight, kd_weight: of the two terms.
        base: the divergence: that of "kd", or the two parts of "dkd".
        alpha, beta: weights of the two parts of "dkd"; without effect on "kd".
        lowest_temperature: the lower bound of T.
        temperature_range: the upper bound of T minus the lower one.
        reversal_epochs: epochs in which the reversed gradient comes to its full size; 0: at once.
        standardise: whether logits are standardised before they are compared (Sun et al., CVPR 2024).
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    base: Literal["kd", "dkd"]
    alpha: float
    beta: float
    lowest_temperature: float
    temperature_range: float
    reversal_epochs: int
    standardise: bool

    def setup(self) -> None:
        self.theta = nn.Parameter(torch.tensor(1.0))

    def temperature(self, epoch: int) -> Tensor:
        """T, a scalar, whose gradient by θ is scaled as in that epoch (from 1)."""
        theta = with_scaled_gradient(self.theta, reversal(epoch, self.reversal_epochs))
        return self.lowest_temperature + self.temperature_range * theta.sigmoid()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images)
        logits, target = out, self.teach(batch, "logits").logits
        if self.standardise:
            logits, target = standardised(logits), standardised(target)
        temperature = self.temperature(batch.epoch)
        logits, target = logits / temperature, target / temperature
        if self.base == "kd":
            divergence = divergence_of_each(logits, target)
        else:
            tckd, nckd = decoupled(logits, target, batch.labels)
            divergence = self.alpha * tckd + self.beta * nckd
        return {
            "ce": self.ce_weight * self.cross_entropy(out, batch.labels),
            # T² is a part of what θ is trained on.
            "kd": self.kd_weight * temperature**2 * divergence.mean(),
        }
