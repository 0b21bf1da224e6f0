"""Normalised KD: a soft cross-entropy for the label's class and one for the other classes, each set normalised on its own.

Yang, Zeng, Li, Zhang, Yuan and Li, "From knowledge distillation to self-knowledge distillation: a unified approach with
normalized loss and customized soft labels", ICCV 2023.

Family: logit
Loss: CE − p₁(zᵗ)_y · log p₁(z)_y + γ · T² · CE(p̂_T(zᵗ), p̂_T(z)), p_T = softmax(· / T), p̂_T = the same over the classes other than y
Source: the authors' code (cls_KD, dis_losses/nkd.py)
Choice: `nkd_loss` takes the largest share as the label of a mixed image, as the code does. This is fixed: recipes
    that mix images refuse a method that reads classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32
from kdbench.method.logits import log_softmax_among


def normalised_parts(
    logits: Tensor, target_logits: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The target class's part and the other classes' part of each image, both (B,), the second one without γ and T².

    Both are cross-entropies: neither is 0 where student and teacher agree, except for the second one of two classes.

    Args:
        logits, target_logits: (B, K), of student and teacher.
        labels: (B,) classes.
        temperature: of the second part; the first has none.
    """
    logits, target_logits = at_least_float32(logits), at_least_float32(target_logits)
    here = F.one_hot(labels, logits.shape[1]).bool()
    target = -target_logits.softmax(dim=1) * logits.log_softmax(dim=1)
    log_p, log_q = (log_softmax_among(each / temperature, ~here) for each in (logits, target_logits))
    return target.masked_fill(~here, 0.0).sum(dim=1), -(log_q.exp() * log_p).sum(dim=1)


def nkd_loss(logits: Tensor, target_logits: Tensor, labels: Tensor, gamma: float, temperature: float) -> Tensor:
    """Both parts, the second one times γ · T², averaged over the batch.

    Args:
        logits, target_logits: (B, K), of student and teacher.
        labels: (B,) classes, or (B, K) shares of the classes, of which the largest counts.
    """
    classes = labels if labels.dim() == 1 else labels.argmax(dim=1)
    target, others = normalised_parts(logits, target_logits, classes, temperature)
    return (target + gamma * temperature**2 * others).mean()


class NKD(Method):
    """Cross-entropy and `nkd_loss`.

    Args:
        gamma: weight of the other classes' part.
        temperature: of that part.
    """

    needs_teacher = True

    gamma: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "nkd": nkd_loss(logits, target, batch.labels, self.gamma, self.temperature),
        }
