"""The order in which training images come up, and how each is augmented: the same for every method of a seed.

Anchors are one endless sequence: pass after pass over the training images, each pass in a new order with new augmentations,
drawn for the pass as a whole. A method that takes 43 anchors per step walks the same sequence as one that takes 128.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.data.augment import Augmenter, Draws
from kdbench.streams import Streams


class Anchors:
    """The sequence of anchors, read from `position` on.

    Args:
        count: number of training images N.
        augmenter: draws the augmentations.
        streams: streams of the run; "order" and "augment" are used.
        position: anchors already taken; the only state that a resumed run needs.
        kind: kind of augmentation, the kind of a method's first view.
    """

    def __init__(self, count: int, augmenter: Augmenter, streams: Streams, position: int = 0, kind: str = "recipe"):
        self.count = count
        self.position = position
        self._augmenter = augmenter
        self._kind = kind
        self._streams = streams
        self._pass = -1
        self._order: Tensor
        self._draws: Draws

    def take(self, anchors: int) -> tuple[Tensor, Draws]:
        """The next `anchors` places (A,) and their augmentations, both on the CPU; may reach over the end of a pass."""
        places, draws = [], []
        while anchors:
            self._load(self.position // self.count)
            first = self.position % self.count
            piece = slice(first, min(first + anchors, self.count))
            places.append(self._order[piece])
            draws.append(self._draws.pick(piece))
            anchors -= piece.stop - first
            self.position += piece.stop - first
        return torch.cat(places), Draws.join(draws)

    def _load(self, number: int) -> None:
        if number != self._pass:
            self._order = torch.randperm(self.count, generator=self._streams("order", number))
            self._draws = self._augmenter.draw(self.count, self._streams("augment", number), self._kind)
            self._pass = number
