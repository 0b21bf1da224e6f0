"""Shares, partners and boxes for methods that mix the images or maps of a batch themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.errors import RunError
from kdbench.method.batch import Batch
from kdbench.mixing import beta, box, left_over

__all__ = ["box", "check_alpha", "drawn_share", "left_over", "partners_of"]


def drawn_share(batch: Batch, alpha: float) -> float:
    """λ ~ Beta(α, α) of a batch."""
    return beta(alpha, int(torch.randint(2**32, (), generator=batch.streams("share"))))


def partners_of(batch: Batch, *tensors: Tensor) -> list[Tensor]:
    """Each tensor (B, …) with the rows of the images' partners, by one permutation of the whole batch."""
    device = batch.labels.device
    count = len(batch.share.gather(batch.labels))
    order = torch.randperm(count, generator=batch.streams("partners", device=device), device=device)
    return [batch.share.own(batch.share.gather(x)[order]) for x in tensors]


def check_alpha(name: str, alpha: float) -> None:
    """Refuse a value that Beta(α, α) does not have."""
    if alpha <= 0:
        raise RunError(f"{name}.alpha={alpha:g} must be above 0")
