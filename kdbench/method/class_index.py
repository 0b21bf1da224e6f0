"""The training images sorted by class, for methods that draw partners for an image by class."""

from __future__ import annotations

import torch
from torch import Tensor


class ClassIndex:
    """Random training images of the same class as a given one, or of another, drawn on the device of `labels`.

    Args:
        labels: (N,) of the training images.

    Raises:
        ValueError: all images are of one class.
    """

    def __init__(self, labels: Tensor):
        self.labels = labels
        count = labels.bincount()
        self._present = count.nonzero().squeeze(1)
        if len(self._present) < 2:
            raise ValueError("needs training images of at least two classes")
        # Images in the order of their classes; the block of a class starts at `_start` and has `_count` images.
        self._order = labels.argsort(stable=True)
        self._place = self._order.argsort()
        self._count = count
        self._start = count.cumsum(0) - count

    def same_class(self, images: Tensor, generator: torch.Generator, *, itself: bool = False) -> Tensor:
        """For each of `images` (B,) a random other image of its class; the image itself if its class has no other.

        Args:
            itself: it may be drawn as well, with the same chance as the others.
        """
        count = self._count[self.labels[images]]
        return self._further(images, _below(count, generator) if itself else 1 + _below(count - 1, generator))

    def several_of_class(self, images: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """For each of `images` (B,) `number` random other images of its class, all different, (B, number).

        Where a class has too few they are drawn with replacement; the image itself if its class has no other.
        """
        others = self._count[self.labels[images]] - 1
        enough, shifts = others >= number, others.new_empty(len(images), 0)
        for drawn in range(number):
            shift = _below(torch.where(enough, others - drawn, others), generator)
            # The shifts of before are left out: in ascending order, each moves those that are not smaller up by one.
            for before in shifts.sort(dim=1).values.unbind(dim=1):
                shift = shift + (enough & (shift >= before))
            shifts = torch.cat([shifts, shift.unsqueeze(1)], dim=1)
        return torch.stack([self._further(images, 1 + shift) for shift in shifts.unbind(dim=1)], dim=1)

    def _further(self, images: Tensor, shift: Tensor) -> Tensor:
        """For each of `images` (B,) the image `shift` (B,) places after it in its class, whose end leads to its beginning."""
        count, start = self._count[self.labels[images]], self._start[self.labels[images]]
        return self._order[start + (self._place[images] - start + shift) % count]

    def other_class(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """For each of `labels` (B,) a random image of a random other class: classes have equal chances."""
        number = _below(torch.full_like(labels, len(self._present) - 1), generator)
        other = self._present[number + (number >= torch.searchsorted(self._present, labels))]
        return self._order[self._start[other] + _below(self._count[other], generator)]

    def other_images(self, labels: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """For each of `labels` (B,) `number` random images of other classes, (B, number): images have equal chances.

        Drawn with replacement.
        """
        count, start = self._count[labels].unsqueeze(1), self._start[labels].unsqueeze(1)
        place = _below((len(self.labels) - count).expand(-1, number), generator)
        # The candidates are the sorted images without the own class's block: jump over it.
        return self._order[place + torch.where(place >= start, count, 0)]


def _below(bound: Tensor, generator: torch.Generator) -> Tensor:
    """Uniformly random integers from 0 to below each bound (0 where the bound is 0), even to within bound / 2³²."""
    fraction = torch.randint(2**32, bound.shape, generator=generator, device=bound.device)
    return (fraction * bound) >> 32
