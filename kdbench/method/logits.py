"""What methods that compare logits share: standardisation, divergences of single images, and a warm-up by epochs."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from kdbench.precision import at_least_float32

EPSILON = 1e-7  # added to the standard deviation of an image's logits


def deviation(logits: Tensor) -> Tensor:
    """Standard deviation over the classes of each image, with K − 1 in the denominator, plus 1e-7; (B, K) to (B, 1)."""
    return at_least_float32(logits).std(dim=1, keepdim=True) + EPSILON


def standardised(logits: Tensor) -> Tensor:
    """Logits (B, K) of each image, minus their mean and over their `deviation`; in float32 or wider.

    The gradient passes through both. Equal logits become 0, with a gradient of the order of 1e7.

    Sun, Ren, Li, Wang and Cao, "Logit standardization in knowledge distillation", CVPR 2024.
    """
    logits = at_least_float32(logits)
    return (logits - logits.mean(dim=1, keepdim=True)) / deviation(logits)


def divergence_of_each(logits: Tensor, target_logits: Tensor) -> Tensor:
    """KL(softmax(target) ‖ softmax(logits)) of each image, summed over the classes; (B, K) both, result (B,).

    Divide both by a temperature first where there is one; the factor T² is not included.
    """
    log_p = F.log_softmax(at_least_float32(logits), dim=1)
    log_q = F.log_softmax(at_least_float32(target_logits), dim=1)
    return F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=1)


def log_softmax_among(logits: Tensor, classes: Tensor) -> Tensor:
    """Logarithms of a softmax over some of the classes alone, and 0 at the others, so that these add nothing to a divergence.

    Args:
        logits: (B, K).
        classes: (B, K) bool, the classes that take part; at least one for each image.
    """
    left_out = ~classes
    return F.log_softmax(at_least_float32(logits).masked_fill(left_out, -math.inf), dim=1).masked_fill(left_out, 0.0)


def warm_up(epoch: int, epochs: int) -> float:
    """Factor of a term that grows linearly over the first `epochs` epochs: 1 / epochs in epoch 1, 1 from epoch `epochs` on.

    Args:
        epoch: from 1, such as `Batch.epoch`.
        epochs: 0 for a term that has its full weight from the start.
    """
    return min(epoch / epochs, 1.0) if epochs else 1.0
