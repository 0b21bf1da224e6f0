"""Confidence penalty: predictions of low entropy are punished.

Pereyra, Tucker, Chorowski, Kaiser and Hinton, "Regularizing neural networks by penalizing confident output distributions", ICLR
workshop 2017.

Family: regulariser
Loss: CE − β · H(p), H(p) = −Σ_k p_k · ln p_k; with a threshold τ, CE + β · max(0, τ − H(p))
Source: the formula; netcal (regularization/ConfidencePenalty.py)
Choice: `threshold` is None, so that every image counts; τ leaves predictions of more entropy alone, as the paper also does
Choice: `rise` is 0, so that β is the same throughout; the paper also lets it grow, here over the first `rise` of the training
Fault: other code (Self-KD-Lib's maximum entropy) averages over images and classes, so that its β of 0.5 is 0.005 for 100 classes:
    `over` = "entries", which is the variant `max_entropy`. With the sign of netcal's class for torch it rewards confidence:
    a negative ConfidencePenalty.weight.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32


def entropy_of_each(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) of each image, in nats; (B, K) to (B,)."""
    log_p = F.log_softmax(at_least_float32(logits), dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def confidence_penalty(logits: Tensor, threshold: float | None = None) -> Tensor:
    """−H, or max(0, τ − H) with a threshold, averaged over the batch; logits (B, K)."""
    entropy = entropy_of_each(logits)
    return -entropy.mean() if threshold is None else F.relu(threshold - entropy).mean()


class ConfidencePenalty(Method):
    """Cross-entropy and `confidence_penalty`.

    Args:
        weight: β.
        threshold: τ in nats; None: every prediction is punished.
        rise: share of the training over which β grows linearly from 0.
        over: "images": the entropy is summed over the classes; "entries": it is averaged over them, as in Self-KD-Lib.
    """

    weight: float
    threshold: float | None
    rise: float
    over: Literal["images", "entries"]

    def setup(self) -> None:
        if not 0 <= self.rise <= 1:
            raise RunError(f"ConfidencePenalty.rise={self.rise:g} must be between 0 and 1 (a share of the training)")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        weight = self.weight * (min(batch.progress / self.rise, 1.0) if self.rise else 1.0)
        if self.over == "entries":
            weight /= self.info.classes
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "penalty": weight * confidence_penalty(logits, self.threshold),
        }
