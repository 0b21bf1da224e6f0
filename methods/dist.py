"""DIST: the student's probabilities correlate with the teacher's, over the classes of an image and over the images of a class.

Huang, You, Wang, Qian and Xu, "Knowledge distillation from a stronger teacher", NeurIPS 2022.

Family: logit
Loss: CE + 2 · T² · (β · (1 − mean_i ρ(P_i·, Pᵗ_i·)) + γ · (1 − mean_k ρ(P_·k, Pᵗ_·k))), P = softmax(z / T) as (B, K),
    ρ(a, b) = a' · b' / (‖a'‖ ‖b'‖ + 1e-8), a' = a − mean a
Source: the authors' code (image_classification_sota, losses/dist_kd.py)
Choice: `floor` is 0, so that 1e-8 alone keeps the correlation finite, as in the code. Where the student's logits of an image are
    all equal the gradient is then of the order of 1e8; with a larger floor no norm counts as smaller than that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32

EPSILON = 1e-8  # added to products of norms


def correlation(a: Tensor, b: Tensor, dim: int, floor: float = 0.0) -> Tensor:
    """Pearson's correlation of two matrices of one shape along `dim`; 0 where one of them is constant.

    Args:
        floor: smaller norms count as this; they have no gradient.
    """
    a, b = a - a.mean(dim=dim, keepdim=True), b - b.mean(dim=dim, keepdim=True)
    norms = [torch.linalg.vector_norm(each, dim=dim).clamp(min=floor) for each in (a, b)]
    result: Tensor = (a * b).sum(dim=dim) / (norms[0] * norms[1] + EPSILON)
    return result


def dist_loss(
    logits: Tensor, target_logits: Tensor, beta: float, gamma: float, temperature: float, floor: float = 0.0
) -> Tensor:
    """T² · (β · inter + γ · intra): inter compares the classes of each image, intra the images of each class.

    Args:
        logits, target_logits: (B, K), of student and teacher, for the whole batch.
        floor: of the norms in `correlation`.
    """
    ours, theirs = ((at_least_float32(each) / temperature).softmax(dim=1) for each in (logits, target_logits))
    inter, intra = (1 - correlation(ours, theirs, dim, floor).mean() for dim in (1, 0))
    return temperature**2 * (beta * inter + gamma * intra)


class DIST(Method):
    """Cross-entropy and `dist_loss` of the whole batch.

    Args:
        kd_weight: of `dist_loss`.
        beta, gamma: weights within it, of the images' and of the classes' correlations.
        temperature: T.
        floor: smallest norm of a centred row or column of probabilities.
    """

    needs_teacher = True

    kd_weight: float
    beta: float
    gamma: float
    temperature: float
    floor: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        loss = dist_loss(
            batch.share.gather(logits), batch.share.gather(target), self.beta, self.gamma, self.temperature, self.floor
        )
        return {"ce": self.cross_entropy(logits, batch.labels), "dist": self.kd_weight * loss}
