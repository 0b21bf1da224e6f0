"""A dataset in memory, and the order its images are put in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Arrays:
    """All images of a dataset, decoded.

    Attributes:
        train_images, test_images: (N, H, W, C) uint8.
        train_labels, test_labels: (N,) int64.
        classes: their names; a label is an index into them.
        notes: sentences for the user about how the images were read; not part of the data.

    Raises:
        ValueError: shapes, types or labels that do not fit each other.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for images, labels in ((self.train_images, self.train_labels), (self.test_images, self.test_labels)):
            if images.ndim != 4 or images.dtype != "uint8" or images.shape[1:] != self.train_images.shape[1:]:
                raise ValueError(f"images must be (N, H, W, C) uint8 of one size, not {images.shape} {images.dtype}")
            if labels.shape != images.shape[:1] or labels.dtype != "int64":
                raise ValueError(f"labels must be ({len(images)},) int64, not {labels.shape} {labels.dtype}")
            if len(labels) and (labels.min() < 0 or labels.max() >= len(self.classes)):
                raise ValueError(f"labels must be between 0 and {len(self.classes) - 1}")

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.train_images.shape[-1])

    def digest(self) -> str:
        """sha256 (hex) of the shapes and bytes of the four arrays: equal for equal data, wherever it is stored."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        import numpy as np

        total = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            total.update(f"{array.shape} {array.dtype}".encode())
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()


def canonical(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) and labels (N,) sorted by (label, sha256 of the pixels), in C order."""
    import numpy as np

    keys = [(int(label), hashlib.sha256(image.tobytes()).digest()) for image, label in zip(images, labels, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return np.ascontiguousarray(images[order]), labels[order]
