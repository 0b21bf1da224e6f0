"""Decoupled knowledge distillation: KD in two parts with weights of their own, the label's class and all other classes.

Zhao, Cui, Song, Qiu and Liang, "Decoupled knowledge distillation", CVPR 2022.

Family: logit
Loss: CE + w(e) · T² · (α · TCKD + β · NCKD), w(e) = min(e / 20, 1),
    TCKD = KL of (p_y, 1 − p_y), NCKD = KL of the softmax over the classes other than y, all at T
Source: mdistiller, distillers/DKD.py
Choice: one β of 8 is the default for all pairs of networks, where the authors choose one from 2 to 8 for each pair; `beta`
    gives the others.
Choice: `standardise` is off; on, both networks' logits are standardised before the two parts are computed (ls_dkd).
Fault: the original masks classes with −1000 and takes the logarithm of a sum of probabilities, which is −inf in float32 where
    logits over T are more than 103 apart; here the sum is over the logarithms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32
from kdbench.method.logits import divergence_of_each, log_softmax_among, standardised, warm_up


def decoupled(logits: Tensor, target_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD of each image, both (B,); KL = TCKD + (1 − p_y of the teacher) · NCKD.

    NCKD is 0 where there are two classes.

    Args:
        logits, target_logits: (B, K) of student and teacher, over the temperature.
        labels: (B,) classes.
    """
    others = ~F.one_hot(labels, logits.shape[1]).bool()
    target = divergence_of_each(binary_logits(logits, others), binary_logits(target_logits, others))
    log_p, log_q = (log_softmax_among(each, others) for each in (logits, target_logits))
    return target, F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=1)


def binary_logits(logits: Tensor, others: Tensor) -> Tensor:
    """Logits (B, 2) whose softmax is the probability of the target class and that of all others."""
    logits = at_least_float32(logits)
    target, rest = (logits.masked_fill(mask, -torch.inf).logsumexp(dim=1) for mask in (others, ~others))
    return torch.stack([target, rest], dim=1)


def dkd_loss(
    logits: Tensor, target_logits: Tensor, labels: Tensor, alpha: float, beta: float, temperature: float
) -> Tensor:
    """T² · (α · TCKD + β · NCKD), averaged over the batch; T² is that of the code.

    Args:
        logits, target_logits: (B, K), of student and teacher.
        labels: (B,) classes.
    """
    tckd, nckd = decoupled(logits / temperature, target_logits / temperature, labels)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


class DKD(Method):
    """Cross-entropy and `dkd_loss`.

    Args:
        alpha, beta: weights of the target class's part and of the other classes' part.
        temperature: T.
        warmup_epochs: epochs over which `dkd_loss` comes to its full weight; 0: without a warm-up.
        standardise: whether the logits of `dkd_loss` are standardised first (Sun et al., CVPR 2024).
    """

    needs_teacher = True

    alpha: float
    beta: float
    temperature: float
    warmup_epochs: int
    standardise: bool

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images)
        logits, target = out, self.teach(batch, "logits").logits
        if self.standardise:
            logits, target = standardised(logits), standardised(target)
        loss = dkd_loss(logits, target, batch.labels, self.alpha, self.beta, self.temperature)
        return {
            "ce": self.cross_entropy(out, batch.labels),
            "dkd": warm_up(batch.epoch, self.warmup_epochs) * loss,
        }
