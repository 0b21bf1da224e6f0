"""Label revision: where the teacher is right the student has its logits, where it is wrong a mixture of it with the label.

Lan, Cheung, Xu, Liu, Hu, Li and Chen, "Improve knowledge distillation via label revision and data selection", IEEE
Transactions on Cognitive and Developmental Systems 2025.

Family: logit
Loss: mean over the images on which the teacher is right of (CE + λ1 · mean_k (z_k − zᵗ_k)²) + λ2 · mean over the others of
    mean_k (p_k − β pᵗ_k − (1 − β) [k = y])², β = η / (max pᵗ − pᵗ_y + 1), all at T = 1
Source: RLD (mdistiller/distillers/REVISION.py)
Choice: `average` is "group" as in the source: a mean over each of the two groups, so that both have equal weight at any
    sizes, and a batch without one of them lacks its terms. "batch" divides both sums by the number of all images.
Choice: the paper's selection of training images is not in the source, and is left out.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32


def revised(target_logits: Tensor, labels: Tensor, eta: float) -> Tensor:
    """Probabilities of the teacher, mixed with the label so far that the label is the most probable class if η < 1.

    Args:
        target_logits: (B, K).
        labels: (B,) classes.
        eta: η; the teacher's share is η / (1 + lead of its largest class over the label).

    Returns:
        (B, K); each row is a distribution.
    """
    p = F.softmax(at_least_float32(target_logits), dim=1)
    share = eta / (p.amax(dim=1, keepdim=True) - p.gather(1, labels.unsqueeze(1)) + 1)
    return share * p + (1 - share) * F.one_hot(labels, p.shape[1])


class Revision(Method):
    """Cross-entropy and squared errors of logits where the teacher is right, squared errors of `revised` labels elsewhere.

    Args:
        logits_weight: λ1, of the squared errors of logits.
        revision_weight: λ2, of the squared errors of probabilities.
        eta: η, the teacher's share in a revised label.
        average: over each group of images, or over the whole "batch".
    """

    needs_teacher = True

    logits_weight: float
    revision_weight: float
    eta: float
    average: Literal["group", "batch"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = at_least_float32(self.student(batch.images)), self.teach(batch, "logits").logits
        right = target.argmax(dim=1) == batch.labels
        ce = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=self.info.label_smoothing)
        matched = (logits - target).square().mean(dim=1)
        revision = (F.softmax(logits, dim=1) - revised(target, batch.labels, self.eta)).square().mean(dim=1)
        return {
            "ce": self._mean(ce, right, batch),
            "logits": self.logits_weight * self._mean(matched, right, batch),
            "revision": self.revision_weight * self._mean(revision, ~right, batch),
        }

    def _mean(self, values: Tensor, group: Tensor, batch: Batch) -> Tensor:
        """Mean of the values (b,) of those images of the whole batch that are in the group (b,); 0 if there are none."""
        mean = torch.where(group, values, 0.0).mean()
        if self.average == "batch":
            return mean
        share = batch.share.mean(group.to(values.dtype).mean())
        return mean / torch.where(share > 0, share, 1.0)
