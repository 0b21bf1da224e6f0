"""Relational distillation: distances and angles between the images of a batch, not the features themselves.

Park, Kim, Lu and Cho, "Relational knowledge distillation", CVPR 2019.

Family: relation
Loss: CE + β_d · smooth-L1 of relative distances + β_a · smooth-L1 of angles, of the pooled features
Source: RepDistiller
Fault: the gradient is NaN where two features coincide; here it is 0
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, full_precision

WHOLE = 128**3
"""Triples whose cosines are computed at once. More of them are computed in blocks of at most half as many, 4 MiB in float32."""


def relative_distances(features: Tensor) -> Tensor:
    """Pairwise L2 distances over their mean (ψ_D in the paper); features (B, D), result (B, B).

    The mean is over the positive entries: neither the diagonal nor equal rows count. If there are none, all is 0.
    """
    # The faster mode takes the root of a difference of large numbers: neither exact nor differentiable near 0.
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    count = (distances > 0).sum()
    mean = torch.where(count > 0, distances.sum() / count.clamp(min=1), 1.0)
    return distances / mean


def angles(features: Tensor, vertices: Tensor | None = None) -> Tensor:
    """Cosine of the angle at i between j and k (ψ_A in the paper); features (B, D), result (B, B, B).

    It is 0 where i coincides with j or with k.

    Args:
        vertices: (V, D), the features of i; all of `features` by default. The result is then (V, B, B).
    """
    differences = features.unsqueeze(0) - (features if vertices is None else vertices).unsqueeze(1)
    lengths = torch.linalg.vector_norm(differences, dim=2, keepdim=True)
    # Equal rows have no direction. Over an infinite length it is 0, and so is its gradient; over a small ε the gradient
    # would be finite, but of the order of 1 / ε.
    directions = differences / lengths.masked_fill(lengths == 0, torch.inf)
    return torch.bmm(directions, directions.transpose(1, 2))


def distance_loss(features: Tensor, target: Tensor) -> Tensor:
    """Smooth-L1 between relative distances, averaged over all B² pairs, the diagonal included.

    Args:
        features: (B, D), of the student.
        target: (B, D'), of the teacher.
    """
    return F.smooth_l1_loss(relative_distances(features), relative_distances(target))


def angle_loss(features: Tensor, target: Tensor) -> Tensor:
    """Smooth-L1 between the cosines of all B³ triples; features (B, D), target (B, D')."""
    if len(features) ** 3 <= WHOLE:
        return F.smooth_l1_loss(angles(features), angles(target))
    return _InBlocks.apply(features, target) / len(features) ** 3  # type: ignore[no-untyped-call]


class _InBlocks(torch.autograd.Function):
    """The sum over all triples, one block of vertices after another, whose cosines are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(features, target)
        total = features.new_zeros(())
        for block in _blocks(features):
            total += _sum_of_block(
                features, target, block
            )  # no list: each of torch's sums holds on to its block's memory
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        features, target = ctx.saved_tensors
        total = torch.zeros_like(features)
        for block in _blocks(features):
            with torch.enable_grad():
                own = features.detach().requires_grad_()
                loss = _sum_of_block(own, target, block)
            total += torch.autograd.grad(loss, own)[0]
        return gradients[0] * total, None


def _blocks(features: Tensor) -> tuple[Tensor, ...]:
    size = max(1, WHOLE // 2 // len(features) ** 2)
    return torch.arange(len(features), device=features.device).split(size)


def _sum_of_block(features: Tensor, target: Tensor, block: Tensor) -> Tensor:
    return F.smooth_l1_loss(angles(features, features[block]), angles(target, target[block]), reduction="sum")


class RKD(Method):
    """Cross-entropy, distance-wise and angle-wise loss on the pooled features of student and teacher.

    Args:
        distance_weight: of `distance_loss`.
        angle_weight: of `angle_loss`.
    """

    needs_teacher = True

    distance_weight: float
    angle_weight: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        target = at_least_float32(self.teach(batch, "pooled").pooled)
        with full_precision(batch.images.device):
            # The pairs and triples are those of the whole batch, on however many GPUs it lies.
            features, target = (batch.share.gather(x) for x in (at_least_float32(out.pooled), target))
            return {
                "ce": self.cross_entropy(out.logits, batch.labels),
                "distance": self.distance_weight * distance_loss(features, target),
                "angle": self.angle_weight * angle_loss(features, target),
            }
