"""Images that lie decoded in a file on disk, of which a batch is read when it is needed (`readers.decoded_file`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from kdbench.data.images import Images, Wanted
from kdbench.pinned import to_device


class Cached(Images):
    """Some of the images of a file.

    Args:
        pixels: (M, H, W, C) uint8, mapped into memory.
        labels: (M,) int64.
        places: (N,) those of them that belong to this part.
        device: where `take`, `batches` and `fetch` put images.
    """

    in_memory = False

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, places: np.ndarray, device: torch.device):
        self.labels = torch.from_numpy(labels[places]).to(device)
        self._pixels = pixels
        self._places = places

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        _, height, width, channels = self._pixels.shape
        return height, width, channels

    def take(self, places: Tensor) -> Tensor:
        """The images (B, H, W, C) at `places` (B,), on the device."""
        pixels = torch.from_numpy(self._pixels[self._places[places.cpu().numpy()]])
        device = self.labels.device
        return to_device(pixels, device)

    def fetch(self, wanted: Iterable[Wanted]) -> Iterator[Tensor]:
        """For each step the images (B, H, W, C) that it needs, on the device; whole images only."""
        for places, _ in wanted:
            yield self.take(places)
