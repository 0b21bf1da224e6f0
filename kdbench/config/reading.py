"""The settings of a dataset that its reader takes."""

from __future__ import annotations

from typing import Literal, NamedTuple

from kdbench.errors import UserError


class Reading(NamedTuple):
    """How the images of a dataset are read; the entry of a reader in `READERS` names the settings that it takes.

    Attributes:
        size: side in pixels of the square that each image becomes: its short side is scaled to it, and the centre is cut
            out. 0 leaves images as they are, which then must have one size.
        boxes: each image is first cut to the bounding box of its object.
        labels: the finest classes of the dataset, or its coarse ones.
        skip_broken: leave out the images that cannot be read, instead of stopping; their number is in each result.
    """

    size: int = 0
    boxes: bool = False
    labels: Literal["fine", "coarse"] = "fine"
    skip_broken: bool = False

    @property
    def side(self) -> int:
        """`size`, for a reader of images that have different sizes.

        Raises:
            UserError: it is 0.
        """
        if self.size <= 0:
            raise UserError("Dataset.size must be at least 1 pixel here: images of different sizes are scaled to it")
        return self.size


AS_THEY_ARE = Reading()
"""All settings at their defaults."""
