"""Random crop, mirror image and cutout for a whole batch at once, on the device, from uint8 images that live there.

What is random is drawn apart from what is computed: `Draws` come from a generator on the CPU, so that the same images are
augmented in the same way on every machine, and for every method.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdbench.config.settings import Augment, Dataset


class Draws(NamedTuple):
    """The random choices for B images, each (B,) int64.

    Attributes:
        top, left: corner of the crop in the padded image.
        mirror: 1 to mirror.
        cut_y, cut_x: centre of the cutout.
    """

    top: Tensor
    left: Tensor
    mirror: Tensor
    cut_y: Tensor
    cut_x: Tensor

    def pick(self, which: Tensor | slice) -> Draws:
        return Draws(*(choice[which] for choice in self))

    def to(self, device: torch.device) -> Draws:
        return Draws(*(choice.to(device, non_blocking=True) for choice in self))

    @staticmethod
    def join(parts: list[Draws]) -> Draws:
        return Draws(*(torch.cat(choices) for choices in zip(*parts, strict=True)))


class Augmenter:
    """Turns places in a set of images into normalised, augmented batches.

    Args:
        images: (N, H, W, C) uint8, on the device on which batches are wanted.
        settings, dataset: what to do, and how to normalise.
    """

    def __init__(self, images: Tensor, settings: Augment, dataset: Dataset):
        _, self.height, self.width, _ = images.shape
        self.settings = settings
        self.flip = settings.flip and dataset.mirrored
        self.pad = round(settings.padding * self.width)
        self.cut = round(settings.cutout * self.width)
        self.images = images
        if self.pad:
            # Padded once and for all: a crop is then nothing but an index.
            self.images = torch.nn.functional.pad(images, (0, 0, *[self.pad] * 4), value=settings.fill)
        self.scale, self.shift = _normalisation(dataset, images.device)
        self._rows = torch.arange(self.height, device=images.device)
        self._columns = torch.arange(self.width, device=images.device)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Random choices for `count` images. All are drawn whatever the settings, so that one switch moves no other choice."""

        def whole(limit: int) -> Tensor:
            return torch.randint(limit, (count,), generator=generator)

        return Draws(whole(2 * self.pad + 1), whole(2 * self.pad + 1), whole(2), whole(self.height), whole(self.width))

    def __call__(self, index: Tensor, draws: Draws) -> Tensor:
        """The images at `index` (B,), augmented: (B, C, H, W) float32, normalised, channels last in memory."""
        columns = self._columns.expand(len(index), -1)
        if self.flip:
            columns = torch.where(draws.mirror[:, None] == 1, self.width - 1 - columns, columns)
        rows = self._rows + draws.top[:, None]
        columns = columns + draws.left[:, None]
        batch = self.images[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        batch = torch.addcmul(self.shift, batch.float(), self.scale)
        if self.cut:
            batch = batch * self._outside_cut(draws)[..., None]
        return batch.permute(0, 3, 1, 2)

    def _outside_cut(self, draws: Draws) -> Tensor:
        """(B, H, W), 0 inside the square and 1 outside; the square may reach over the edge, as in the paper."""
        half = self.cut // 2
        from_top = self._rows - (draws.cut_y[:, None] - half)
        from_left = self._columns - (draws.cut_x[:, None] - half)
        rows = (from_top >= 0) & (from_top < self.cut)
        columns = (from_left >= 0) & (from_left < self.cut)
        return (~(rows[:, :, None] & columns[:, None, :])).float()


def normalise(images: Tensor, dataset: Dataset) -> Tensor:
    """(B, H, W, C) uint8 as (B, C, H, W) float32, normalised and not augmented."""
    scale, shift = _normalisation(dataset, images.device)
    return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2)


def _normalisation(dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    std = torch.tensor(dataset.std, device=device)
    return 1 / (255 * std), -torch.tensor(dataset.mean, device=device) / std
