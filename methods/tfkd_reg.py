"""Teacher-free distillation by regularisation: a virtual teacher, right with a fixed probability, in place of a network.

Yuan, Tay, Li, Wang and Feng, "Revisiting knowledge distillation via label smoothing regularization", CVPR 2020 (Tf-KD_reg).

Family: self
Loss: (1 − α) · CE + α · KL(u ‖ softmax(z)), u = softmax(v / τ), v = 0.99 at y and 0.01 / (K − 1) at the other classes
Source: the authors' code (Teacher-free-Knowledge-Distillation, my_loss_function.py)
Choice: `average` is "images" by default, the mean of the KL over the batch, with α = 0.1 and τ = 20. "elements" is the authors'
    mean over images and classes, which they multiply by a number m for each network: `kd_weight` is then α · m. Where m = K, as
    for their ResNet-18 on CIFAR-100, both are the same.
Choice: v are probabilities, as in the authors' code: with τ = 20 their softmax is all but uniform, so that this is in effect a
    penalty on confidence. The paper's formula is a softmax of them as well.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32


def virtual_logits(labels: Tensor, classes: int, correct: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Logits (B, K) of the virtual teacher, which are probabilities: `correct` at the label, the rest equally at the others.

    Args:
        labels: (B,).
    """
    others = torch.full((len(labels), classes), (1 - correct) / (classes - 1), dtype=dtype, device=labels.device)
    return others.scatter_(1, labels.unsqueeze(1), correct)


def regularisation(
    logits: Tensor, labels: Tensor, temperature: float, correct: float, average: Literal["images", "elements"]
) -> Tensor:
    """KL(softmax(v / τ) ‖ softmax(logits)) with the `virtual_logits` v; neither the student's softmax nor the loss has a τ.

    Args:
        logits: (B, K).
        labels: (B,).
        temperature: τ.
        correct: the virtual teacher's probability of the label.
        average: "images": summed over the classes, averaged over the batch; "elements": averaged over both, K times less.
    """
    log_p = F.log_softmax(at_least_float32(logits), dim=1)
    target = virtual_logits(labels, logits.shape[1], correct, log_p.dtype) / temperature
    loss = F.kl_div(log_p, F.log_softmax(target, dim=1), reduction="batchmean", log_target=True)
    return loss if average == "images" else loss / logits.shape[1]


class TfKDReg(Method):
    """Cross-entropy and `regularisation` towards the virtual teacher.

    Args:
        ce_weight, kd_weight: of the two.
        temperature: of the virtual teacher.
        correct: the virtual teacher's probability of the true class.
        average: of the KL divergence.
    """

    ce_weight: float
    kd_weight: float
    temperature: float
    correct: float
    average: Literal["images", "elements"]

    def setup(self) -> None:
        if not 0 < self.correct <= 1:
            raise RunError(f"TfKDReg.correct={self.correct} must be a probability above 0 and at most 1")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        loss = regularisation(logits, batch.labels, self.temperature, self.correct, self.average)
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * loss,
        }
