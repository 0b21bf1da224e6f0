"""Mixup and CutMix: the images of a batch, mixed in pairs with their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import mixing
from kdbench.config.switches import Mix


@dataclass(frozen=True)
class Mixing:
    """What is mixed in one batch; drawn on the CPU, for all anchors of the batch.

    Attributes:
        partner: (A,) int64, for each anchor the number of the anchor that it is mixed with.
        share: λ, the share of the anchor's own image and label.
        box: top, bottom, left and right of the part that comes from the partner, in pixels; None for mixup.
    """

    partner: Tensor
    share: float
    box: tuple[int, int, int, int] | None = None

    def images(self, own: Tensor, partners: Tensor) -> Tensor:
        """Mixed images (B, C, H, W), from the images and those of their partners."""
        if self.box is None:
            return own.lerp(partners, 1 - self.share)
        top, bottom, left, right = self.box
        mixed = own.clone()
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed

    def labels(self, own: Tensor, partners: Tensor, classes: int) -> Tensor:
        """Mixed labels (B, K) float32 that sum to 1, from labels (B,)."""
        own, partners = (F.one_hot(labels, classes).float() for labels in (own, partners))
        return own.lerp(partners, 1 - self.share)


def draw(mix: Mix, anchors: int, size: tuple[int, int], streams: Callable[[str], torch.Generator]) -> Mixing | None:
    """What is mixed in a batch of so many anchors; None for one that is not mixed.

    Args:
        size: height and width of the images.
        streams: the random streams of the step.
    """
    if not mix.is_on:
        return None
    generator = streams("mix")
    # All are drawn whatever the settings, so that one switch moves no other choice.
    partner = torch.randperm(anchors, generator=generator)
    is_mixed, cut, y, x, seed = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    if is_mixed >= mix.probability:
        return None
    cuts = mix.cutmix > 0 and (mix.mixup == 0 or cut < 0.5)
    alpha = mix.cutmix if cuts else mix.mixup
    share = mixing.beta(alpha, int(seed * 2**32))
    if not cuts:
        return Mixing(partner, share)
    box = mixing.box(size, share, (y, x))
    return Mixing(partner, mixing.left_over(size, box), box)
