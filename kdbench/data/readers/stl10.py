"""STL-10 (Coates, Lee and Ng, 2011): 5,000 training and 8,000 test images of 96×96 pixels, from the official binary files.

    DIR/{train_X,train_y,test_X,test_y}.bin, class_names.txt      also in DIR/stl10_binary and DIR/stl10

The unlabelled images are not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.data.readers import published
from kdbench.data.readers.arrays import Arrays, canonical
from kdbench.errors import RunError

if TYPE_CHECKING:
    import numpy as np

READERS = {"stl10": ("read", {"needs_folder": True, "classes": 10, "files": ("train_X.bin", "*/train_X.bin")})}

SIDE = 96
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def read(source: str, folder: Path | None) -> Arrays:
    """The images (N, 96, 96, 3).

    Raises:
        RunError: a file is missing or damaged.
    """
    assert folder is not None  # registry.check_folder has made sure
    return Arrays(*_part(folder, "train"), *_part(folder, "test"), CLASSES)


def _part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    where = "https://cs.stanford.edu/~acoates/stl10"
    images, labels = (
        published.file(folder, ("stl10_binary", "stl10"), f"{part}_{kind}.bin", where) for kind in ("X", "y")
    )
    pixels, numbers = np.fromfile(images, dtype=np.uint8), np.fromfile(labels, dtype=np.uint8).astype(np.int64)
    if len(pixels) != len(numbers) * 3 * SIDE * SIDE or not len(numbers):
        raise RunError(
            f"{images} has {len(pixels):,} bytes, not {3 * SIDE * SIDE:,} for each of {len(numbers):,} labels"
        )
    if numbers.min() < 1 or numbers.max() > len(CLASSES):
        raise RunError(f"{labels} has labels from {numbers.min()} to {numbers.max()}, not 1 to {len(CLASSES)}")
    # Stored by channel and column.
    return canonical(pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1), numbers - 1)
