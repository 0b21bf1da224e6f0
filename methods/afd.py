"""Attention-based feature distillation: each stage of the teacher chooses which stages of the student it teaches.

Ji, Heo and Park, "Show, attend and distill: knowledge distillation via attention-based feature matching", AAAI 2021.

Family: feature
Loss: CE + 0.9 · KD + 200 · Σ_j mean_b Σ_i α_{b,j,i} · mean over pixels of (v_{i→j} − v_j^t)², v = norm over the pixels of (mean
    over channels of F²), α = softmax over i of (key_{b,i,j} · query_{b,j} + p_j · p_i) / √Q
Source: attention-feature-distillation (distill/AFD.py)
Choice: the candidates are the stages of both networks. The authors take every residual block, before its ReLU, which networks of
    kdbench do not show; their published numbers belong to that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import normalised, pooled


def activity(x: Tensor) -> Tensor:
    """Mean square over the channels of a map, (B, 1, H, W) of (B, C, H, W)."""
    return at_least_float32(x).square().mean(dim=1, keepdim=True)


def matching_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], attention: Tensor) -> Tensor:
    """Squared distances of the normalised activities of all pairs of stages, weighted by their attention.

    The activity of the student is averaged, or repeated, to the resolution of the teacher's stage. Maps of zeros have activity 0
    and no gradient.

    Args:
        maps: of the student, (B, C_i, H_i, W_i) for each of S stages.
        targets: of the teacher, (B, C_j, H_j, W_j) for each of S^t stages.
        attention: (B, S^t, S), each row a distribution over the student's stages.

    Returns:
        Sum over the teacher's stages of the mean over the batch.
    """
    activities = [activity(x) for x in maps]
    terms = []
    for weights, target in zip(attention.unbind(dim=1), targets, strict=True):
        height, width = target.shape[2:]
        resized = [pooled(a, (height, width)).flatten(1) for a in activities]
        values = normalised(torch.stack(resized, dim=1), dim=2)
        distances = (values - normalised(activity(target).flatten(1)).unsqueeze(1)).square().mean(dim=2)
        terms.append((weights * distances).sum(dim=1).mean())
    return torch.stack(terms).sum()


class LinearBN(nn.Sequential):
    """A linear layer with batch normalisation, on rows (N, width)."""

    def __init__(self, width: int, target: int):
        super().__init__(nn.Linear(width, target), nn.BatchNorm1d(target))


class Attention(nn.Module):
    """Attention of each stage of the teacher over the stages of the student, in float32.

    Args:
        widths, target_widths: channels of the stages of student and teacher.
        dim: Q, the length of queries and keys.
    """

    def __init__(self, widths: Sequence[int], target_widths: Sequence[int], dim: int):
        super().__init__()
        self.queries = nn.ModuleList(LinearBN(width, dim) for width in target_widths)
        self.keys = nn.ModuleList(LinearBN(width, dim) for width in widths)
        self.bilinear = LinearBN(dim, len(target_widths) * dim)
        self.bilinear[1].bias.requires_grad_(
            False
        )  # shifts all the student's stages alike, which the softmax does not see
        self.target_positions = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(target_widths), dim)))
        self.positions = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(widths), dim)))

    def forward(self, maps: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Attention (B, S^t, S) of maps (B, C_s, H_s, W_s) of S stages and targets of S^t stages."""
        with full_precision(maps[0].device):
            query = torch.stack([layer(_means(t)) for layer, t in zip(self.queries, targets, strict=True)], dim=1)
            key = torch.stack([F.relu(layer(_means(x))) for layer, x in zip(self.keys, maps, strict=True)], dim=1)
            # A row for each image and stage, and in it a key for each stage of the teacher.
            keys = self.bilinear(key.flatten(0, 1)).view(*key.shape[:2], len(targets), -1)
            agreement = torch.einsum("bstq,btq->bts", keys, query) + self.target_positions @ self.positions.T
            return (agreement / math.sqrt(query.shape[2])).softmax(dim=2)


def _means(x: Tensor) -> Tensor:
    return at_least_float32(x).mean(dim=(2, 3))


class AFD(Method):
    """Cross-entropy, knowledge distillation and `matching_loss`, whose attention is trained with the student.

    Args:
        matching_weight: of `matching_loss`.
        dim: Q, the length of queries and keys.
        kd_weight, temperature: of knowledge distillation on the logits, which is part of the published method.
    """

    needs_teacher = True

    matching_weight: float
    dim: int
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        ours, theirs = self.stage_shapes(), self.stage_shapes(self.teacher)
        self.attention = Attention([width for width, *_ in ours], [width for width, *_ in theirs], self.dim)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "logits", "stages")
        attention = self.attention(out.stages, taught.stages)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "matching": self.matching_weight * matching_loss(out.stages, taught.stages, attention),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
