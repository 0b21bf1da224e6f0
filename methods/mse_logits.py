"""MSE of logits: the student learns the teacher's logits as they are, and nothing else.

Kim, Oh, Kim, Cho and Yun, "Comparing Kullback-Leibler divergence and mean squared error loss in knowledge distillation",
IJCAI 2021.

Family: logit
Loss: mean over images and classes of (z − zᵗ)²
Source: kd_data (tools/losses.py)
Choice: the only term, as in the source: no cross-entropy, no labels, no temperature.
Choice: `error` is "squared"; "smooth_l1" is the other loss of the same file.
Choice: a teacher is one network; the source adds up the logits of several.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32


def logits_error(logits: Tensor, target_logits: Tensor, error: Literal["squared", "smooth_l1"]) -> Tensor:
    """Error of the student's logits, averaged over batch and classes; both (B, K)."""
    function = F.mse_loss if error == "squared" else F.smooth_l1_loss
    return function(at_least_float32(logits), at_least_float32(target_logits))


class MSELogits(Method):
    """`logits_error` alone."""

    needs_teacher = True

    error: Literal["squared", "smooth_l1"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {"logits": logits_error(logits, target, self.error)}
