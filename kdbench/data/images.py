"""Images of one part of a dataset, and their labels, as training and evaluation take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Wanted(NamedTuple):
    """Images that a step needs.

    Attributes:
        places: (B,) int64 on the CPU.
        crops: (B,) int64, a number for each from which its crop is drawn; None for whole images.
    """

    places: Tensor
    crops: Tensor | None = None


class Images:
    """Images (N, H, W, C) uint8 and labels (N,) int64 on one device.

    Attributes:
        in_memory: all images are on the device; otherwise they are fetched for each batch.
    """

    in_memory = True

    def __init__(self, images: Tensor, labels: Tensor):
        self.images = images
        self.labels = labels

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

    def fetch(self, wanted: Iterable[Wanted]) -> Iterator[Tensor | None]:
        """For each step the images (B, H, W, C) that it needs, if they must be fetched; None where they are in memory."""
        for _ in wanted:
            yield None
