"""USKD: the student makes its own soft labels, of its probability of the true class and of the ranks of the other classes.

Yang, Zeng, Li, Zhang, Yuan and Li, "From knowledge distillation to self-knowledge distillation: a unified approach with
normalized loss and customized soft labels", ICCV 2023.

Family: self
Loss: CE − α · mean_b P_y · ln p_y − β · mean_b Σ_{i≠y} ẑ_i · ln p̂_i + μ · CE(w, y; smoothed by 0.1), P_y = p_y² + 1 − mean_b p_y²,
    p̂ the softmax over i ≠ y, ẑ_i ∝ 1 / rank_i over i ≠ y, w logits of a linear head on the average of F_{S−1}
Source: the authors' code (cls_KD, dis_losses/uskd.py)
Choice: `ranking` is "published" by default: in the authors' code the final head's share in the ranks is ln p_i / (1 − ln p_y),
    because a variable is overwritten, next to the weak head's p_i / (1 − p_y); the final head all but decides. "shares" has the
    paper's p_i / (1 − p_y) for both.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision

EPSILON = 1e-6  # of the authors, in the denominators of the shares


def target_loss(logits: Tensor, labels: Tensor, mean: Tensor) -> Tensor:
    """−P_y · ln p_y, averaged over the batch, with P_y = p_y² + 1 − `mean`, without a gradient through P_y.

    Args:
        logits: (B, K).
        labels: (B,).
        mean: scalar, `mean_square` of the whole batch.
    """
    log_p = F.log_softmax(at_least_float32(logits), dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    soft = (2 * log_p.detach()).exp() + 1 - mean
    return -(soft * log_p).mean()


def mean_square(logits: Tensor, labels: Tensor) -> Tensor:
    """Batch mean of the squared probability of the true class, without gradient; logits (B, K), labels (B,)."""
    p = F.softmax(at_least_float32(logits.detach()), dim=1)
    return p.gather(1, labels.unsqueeze(1)).square().mean()


@torch.no_grad()
def ranked_labels(logits: Tensor, weak: Tensor, labels: Tensor, ranking: Literal["published", "shares"]) -> Tensor:
    """Soft labels (B, K) of the classes that are not the true one: 1 / rank, over their sum; 0 at the true class.

    The rank of a class, from 1, is its place among all K by the sum of what the two heads give it.

    Args:
        logits, weak: (B, K) of the final and of the weak head.
        labels: (B,).
        ranking: "shares": each head gives p_i / (1 − p_y); "published": the final one ln p_i / (1 − ln p_y).
    """
    own = labels.unsqueeze(1)
    p, q = F.log_softmax(at_least_float32(logits), dim=1), F.softmax(at_least_float32(weak), dim=1)
    if ranking == "shares":
        p = p.exp()
    score = q / (1 - q.gather(1, own) + EPSILON) + p / (1 - p.gather(1, own) + EPSILON)
    rank = score.argsort(dim=1, descending=True).argsort(dim=1)
    soft = (1 / (rank + 1).to(score.dtype)).scatter_(1, own, 0.0)
    return soft / soft.sum(dim=1, keepdim=True)


def non_target_loss(logits: Tensor, soft: Tensor, labels: Tensor) -> Tensor:
    """−Σ soft · ln p̂, p̂ the softmax over all classes but the true one, averaged over the batch.

    Args:
        logits: (B, K).
        soft: (B, K), of `ranked_labels`.
        labels: (B,).
    """
    logits = at_least_float32(logits)
    own = F.one_hot(labels, logits.shape[1]).bool()
    log_p = logits - logits.masked_fill(own, -torch.inf).logsumexp(dim=1, keepdim=True)
    return -(soft * log_p).sum(dim=1).mean()


def weak_loss(weak: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the weak head's logits (B, K) with labels (B,) smoothed by 0.1."""
    return F.cross_entropy(at_least_float32(weak), labels, label_smoothing=0.1)


class USKD(Method):
    """Cross-entropy, and `target_loss`, `non_target_loss` and `weak_loss`, with a weak head on the last map but one.

    Args:
        target_weight, non_target_weight, weak_weight: α, β and μ of the paper.
        ranking: of the soft labels.
    """

    target_weight: float
    non_target_weight: float
    weak_weight: float
    ranking: Literal["published", "shares"]

    def setup(self) -> None:
        shapes = self.stage_shapes()
        if len(shapes) < 2:
            raise RunError(f"uskd needs a student with at least two stages; this one has {len(shapes)}")
        self.weak = nn.Linear(shapes[-2][0], self.info.classes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, labels = self.student(batch.images, features=True), batch.labels
        with full_precision(labels.device):
            weak = self.weak(at_least_float32(out.stages[-2]).mean(dim=(2, 3)))
        soft = ranked_labels(out.logits, weak, labels, self.ranking)
        mean = batch.share.mean(mean_square(out.logits, labels))
        return {
            "ce": self.cross_entropy(out.logits, labels),
            "target": self.target_weight * target_loss(out.logits, labels, mean),
            "non_target": self.non_target_weight * non_target_loss(out.logits, soft, labels),
            "weak": self.weak_weight * weak_loss(weak, labels),
        }
