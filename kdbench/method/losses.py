"""Losses that several methods share. One function each, so that a factor T² cannot be missing in one place only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.precision import at_least_float32


def softened_kl(logits: Tensor, target_logits: Tensor, temperature: float) -> Tensor:
    """KL(softmax(target/T) ‖ softmax(logits/T)), summed over classes and averaged over the batch, without the factor T².

    Args:
        logits: (B, K), of the network that learns.
        target_logits: (B, K); detach them where they must not learn.
    """
    log_p = F.log_softmax(at_least_float32(logits) / temperature, dim=1)
    log_q = F.log_softmax(at_least_float32(target_logits) / temperature, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def distillation(logits: Tensor, target_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(target/T) ‖ softmax(logits/T)): gradients keep their size when T changes.

    Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """
    return temperature**2 * softened_kl(logits, target_logits, temperature)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """−Σ target · log softmax(logits), averaged over the batch; logits and target (B, K), each target row a distribution."""
    return -(target * F.log_softmax(at_least_float32(logits), dim=1)).sum(dim=1).mean()


def kd_term(logits: Tensor, target_logits: Tensor, weight: float, temperature: float) -> dict[str, Tensor]:
    """`{"kd": weight · distillation}`, or nothing at weight 0: what a method of feature maps adds to be trained with KD as well."""
    return {"kd": weight * distillation(logits, target_logits, temperature)} if weight else {}


def supervised_contrast(products: Tensor, labels: Tensor) -> Tensor:
    """Mean over images of the mean over their positives of −ln softmax of their row; an image is never in its own row.

    An image without a positive counts as 0.

    Args:
        products: (B, B) inner products of embeddings over the temperature, anchors in rows.
        labels: (B,); positives of an image are the others with its label.

    Khosla et al., "Supervised contrastive learning", NeurIPS 2020, equation 2.
    """
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_p = F.log_softmax(products.masked_fill(own, torch.finfo(products.dtype).min), dim=1)
    positive = (labels.unsqueeze(1) == labels) & ~own
    of_each = log_p.masked_fill(~positive, 0.0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    return -of_each.mean()
