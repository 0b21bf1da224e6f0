"""DTKD: dynamic temperatures, for each image one for the student and one for the teacher, by the largest logit of each.

Wei and Bai, "Dynamic temperature knowledge distillation", arXiv 2404.12711, 2024.

Family: logit
Loss: CE + w(e) · (α · T_t T_z · KL(softmax(zᵗ / T_t) ‖ softmax(z / T_z)) + β · T² · KL(softmax(zᵗ / T) ‖ softmax(z / T))),
    T_x = 2T · max x / (max z + max zᵗ) for x = z, zᵗ, w(e) = min(e / 20, 1)
Source: DTKD (distillers/DTKD.py); its README withdraws the derivation in equations 4 and 5 of the paper, but keeps the results
Choice: the gradient passes through max z, as in the source.
Choice: one α and one β for all pairs of networks, 3 and 1; the authors set them by pair.
Fault: where a largest logit is 0 or negative, a temperature of the source is 0 or negative, or both are infinite. Here the largest
    logits count as 1e-3 at least; DTKD.clamped=False is the source.
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, distillation
from kdbench.method.logits import divergence_of_each, warm_up

LEAST = 1e-3
"""Smallest value that a largest logit counts as, where it is clamped."""


def temperatures(logits: Tensor, target_logits: Tensor, temperature: float, clamped: bool) -> tuple[Tensor, Tensor]:
    """T_z and T_t of each image, (B, 1) both; their mean is T.

    Args:
        logits, target_logits: (B, K) of student and teacher.
        temperature: T.
        clamped: count largest logits as 1e-3 at least.
    """
    largest = [at_least_float32(each).amax(dim=1, keepdim=True) for each in (logits, target_logits)]
    ours, theirs = (each.clamp(min=LEAST) for each in largest) if clamped else largest
    return 2 * temperature * ours / (ours + theirs), 2 * temperature * theirs / (ours + theirs)


def dynamic_loss(logits: Tensor, target_logits: Tensor, temperature: float, clamped: bool = True) -> Tensor:
    """T_t T_z · KL of the softmaxes at their own temperatures, summed over the classes and averaged over the batch.

    Args:
        logits, target_logits: (B, K) of student and teacher.
        temperature, clamped: of `temperatures`.
    """
    ours, theirs = temperatures(logits, target_logits, temperature, clamped)
    return ((ours * theirs).squeeze(1) * divergence_of_each(logits / ours, target_logits / theirs)).mean()


class DTKD(Method):
    """Cross-entropy, `dynamic_loss` and KD, both of which grow over the first epochs.

    Args:
        alpha, beta: weights of `dynamic_loss` and of KD.
        temperature: T.
        warmup_epochs: epochs until both have their full weight; 0: from the start.
        clamped: keep the temperatures of `dynamic_loss` positive.
    """

    needs_teacher = True

    alpha: float
    beta: float
    temperature: float
    warmup_epochs: int
    clamped: bool

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        warm = warm_up(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "dynamic": warm * self.alpha * dynamic_loss(logits, target, self.temperature, self.clamped),
            "kd": warm * self.beta * distillation(logits, target, self.temperature),
        }
