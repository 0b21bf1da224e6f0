"""What methods that rotate images share: the four copies, their labels, and the refusal of images that cannot be rotated."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.errors import RunError

ROTATIONS = 4


def turned(images: Tensor) -> Tensor:
    """Images (4 · B, C, H, H) in blocks of B, of which block r is turned by r · 90 degrees against the clock."""
    return torch.cat([block.rot90(turns, dims=(2, 3)) for turns, block in enumerate(images.chunk(ROTATIONS))])


def rotations(images: Tensor) -> Tensor:
    """The images (B, C, H, H) turned by 0, 90, 180 and 270 degrees against the clock, (4 · B, C, H, H) in blocks of B."""
    return turned(images.repeat(ROTATIONS, 1, 1, 1))


def joint_labels(labels: Tensor) -> Tensor:
    """The label 4y + r of class y turned r times, for `rotations` of a batch: (4 · B,) in blocks of B; labels (B,)."""
    return torch.cat([ROTATIONS * labels + turns for turns in range(ROTATIONS)])


def check_square(method: str, image_shape: tuple[int, int, int]) -> None:
    """Refuse images that are not square; for `setup`, so that a plan can refuse them.

    Args:
        method: its name, for the sentence.
        image_shape: (channels, height, width), `Info.image_shape`.

    Raises:
        RunError: height and width differ.
    """
    _, height, width = image_shape
    if height != width:
        raise RunError(f"{method} needs square images, which it rotates, not {height} × {width}")
