"""Zipf's label smoothing: the classes that the positions of an image vote for, by rank, make its soft label.

Liang, Li, Bing, Zhao, Tang, Lin and Fan, "Efficient one pass self-distillation with Zipf's label smoothing", ECCV 2022.

Family: self
Loss: CE + λ · KL(q ‖ softmax of the logits of all classes but y), q_k ∝ 1 / rank_k over k ≠ y, ranks by the number of positions of
    the deepest map, up-sampled twofold, that the classifier gives to class k
Source: the authors' code (zipfls, pytorch_zipfls/losses.py)
Choice: classes with as many votes share the smallest rank, those without a vote among them; the label has a rank too, and is left
    out afterwards, as in the authors' code.
Choice: only the deepest map votes, as in the authors' PyTorch code; their paper lets classifiers of earlier maps vote as well.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, full_precision
from kdbench.methods.uskd import non_target_loss


def votes_of(logits: Tensor) -> Tensor:
    """Votes (B, K) for each class, of the logits (B, H, W, K) at each position."""
    return F.one_hot(logits.argmax(dim=3).flatten(1), logits.shape[3]).sum(dim=1)


def zipf_labels(votes: Tensor, labels: Tensor, power: float = 1.0) -> Tensor:
    """Soft labels (B, K) of the classes that are not the true one: rank^−power over their sum; 0 at the true class.

    Args:
        votes: (B, K); a class's rank is 1 plus the number of classes with more votes.
        labels: (B,).
    """
    rank = 1 + votes.shape[1] - torch.searchsorted(votes.sort(dim=1).values, votes, right=True)
    soft = rank.to(torch.float32).pow(-power).scatter(1, labels.unsqueeze(1), 0.0)
    return soft / soft.sum(dim=1, keepdim=True)


def zipf_loss(logits: Tensor, soft: Tensor, labels: Tensor) -> Tensor:
    """KL(soft ‖ softmax over all classes but the true one), averaged over the batch.

    Args:
        logits: (B, K).
        soft: (B, K), of `zipf_labels`.
        labels: (B,).
    """
    soft = soft.to(at_least_float32(logits).dtype)
    loss: Tensor = torch.xlogy(soft, soft).sum(dim=1).mean() + non_target_loss(logits, soft, labels)
    return loss


class ZipfLS(Method):
    """Cross-entropy, and `zipf_loss` with the labels that the student's deepest map votes for.

    Args:
        weight: λ.
        power: of the ranks.
    """

    weight: float
    power: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=("unpooled",))
        with torch.no_grad(), full_precision(batch.labels.device):
            large = F.interpolate(at_least_float32(out.unpooled), scale_factor=2, mode="bilinear", align_corners=False)
            fc = self.student.fc
            votes = votes_of(F.linear(large.permute(0, 2, 3, 1), fc.weight, fc.bias))
        soft = zipf_labels(votes, batch.labels, self.power)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "zipf": self.weight * zipf_loss(out.logits, soft, batch.labels),
        }
