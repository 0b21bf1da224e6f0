"""Relational distillation: distances and angles between the images of a batch, not the features themselves.

Park, Kim, Lu and Cho, "Relational knowledge distillation", CVPR 2019.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, full_precision


def relative_distances(features: Tensor) -> Tensor:
    """Pairwise L2 distances over their mean (ψ_D in the paper); features (B, D), result (B, B).

    The mean is over the positive entries: neither the diagonal nor equal rows count. If there are none, all is 0.
    """
    # The faster mode takes the root of a difference of large numbers: neither exact nor differentiable near 0.
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    count = (distances > 0).sum()
    mean = torch.where(count > 0, distances.sum() / count.clamp(min=1), 1.0)
    return distances / mean


def angles(features: Tensor) -> Tensor:
    """Cosine of the angle at i between j and k (ψ_A in the paper); features (B, D), result (B, B, B).

    It is 0 where i coincides with j or with k.
    """
    differences = features.unsqueeze(0) - features.unsqueeze(1)
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
    return F.smooth_l1_loss(angles(features), angles(target))


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
