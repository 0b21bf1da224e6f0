"""NormKD: each image has temperatures of its own, in proportion to the standard deviation of its logits in either network.

Chi, Zheng, Li, Yang, Wu, Lin and Cai, "NormKD: normalized logits for knowledge distillation", 2023.

Family: logit
Loss: 0.1 · CE + 0.9 · mean_i T_i² · KL(softmax(zᵗ / T_i) ‖ softmax(z / S_i)), T_i = 2 · (std zᵗ + 1e-7), S_i = 2 · (std z + 1e-7);
    on DKD: CE + w(e) · mean_i T_i² · (α · TCKD + β · NCKD)
Source: the authors' code (distillers/NormKD.py and NormKD_W_DKD.py)
Choice: 1e-7 is added to the deviations, which the original does not do; equal logits would be divided by 0. The other
    reading is not offered.
Choice: α 4 and β 5 are the defaults on DKD, the authors' values for resnet32x4 → resnet8x4; they choose others for other pairs.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kdbench.method import Batch, Method
from kdbench.method.logits import deviation, divergence_of_each, standardised, warm_up
from kdbench.methods.dkd import decoupled


class NormKD(Method):
    """Cross-entropy, and the base's loss at temperatures of each image's own.

    Args:
        base: method whose loss is computed at these temperatures.
        ce_weight, kd_weight: of the two terms.
        warmup_epochs: epochs over which the second one comes to its full weight; 0: without a warm-up.
        temperature_norm: temperature over the standard deviation of an image's logits.
        alpha, beta: of DKD's parts.
    """

    needs_teacher = True

    base: Literal["kd", "dkd"]
    ce_weight: float
    kd_weight: float
    warmup_epochs: int
    temperature_norm: float
    alpha: float
    beta: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "normkd": self.kd_weight
            * warm_up(batch.epoch, self.warmup_epochs)
            * self.normalised_loss(logits, target, batch.labels),
        }

    def normalised_loss(self, logits: Tensor, target_logits: Tensor, labels: Tensor) -> Tensor:
        """The base's loss times T_i², averaged over the batch; logits (B, K) of student and teacher, labels (B,)."""
        # A softmax does not see that the mean is subtracted as well, and logits of any offset stay exact.
        z, t = (standardised(each) / self.temperature_norm for each in (logits, target_logits))
        if self.base == "kd":
            losses = divergence_of_each(z, t)
        else:
            tckd, nckd = decoupled(z, t, labels)
            losses = self.alpha * tckd + self.beta * nckd
        return ((self.temperature_norm * deviation(target_logits)[:, 0]).square() * losses).mean()
