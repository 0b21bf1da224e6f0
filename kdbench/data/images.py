"""Images of one part of a dataset, and their labels, as training and evaluation take them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Images (N, H, W, C) uint8 and labels (N,) int64 on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def take(self, places: Tensor) -> Tensor:
        """The images (B, H, W, C) at `places` (B,), int64 on the device of the images."""
        return self.images[places]

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in order, (B, H, W, C), B of `size` or, in the last batch, fewer."""
        for places in torch.arange(len(self), device=self.labels.device).split(size):
            yield self.take(places)
