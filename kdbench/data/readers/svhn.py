"""Street View House Numbers, format 2 (Netzer et al., 2011): cropped digits from the files train_32x32.mat and test_32x32.mat.

They are looked for in DIR, DIR/svhn and DIR/SVHN. The `extra` images are not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.data.readers import published
from kdbench.data.readers.arrays import Arrays, canonical
from kdbench.errors import RunError, reason

if TYPE_CHECKING:
    import numpy as np

READERS = {"svhn": ("read", {"needs_folder": True, "classes": 10, "files": ("train_32x32.mat", "*/train_32x32.mat")})}


def read(source: str, folder: Path | None) -> Arrays:
    """The images (N, 32, 32, 3); a label is the digit, which the files store as 10 for 0.

    Raises:
        RunError: a file is missing or damaged.
    """
    assert folder is not None  # registry.check_folder has made sure
    where = "http://ufldl.stanford.edu/housenumbers"
    train, test = (
        published.file(folder, ("svhn", "SVHN"), name, where) for name in ("train_32x32.mat", "test_32x32.mat")
    )
    return Arrays(*_part(train), *_part(test), tuple(str(digit) for digit in range(10)))


def _part(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np
    from scipy.io import loadmat

    try:
        content = loadmat(str(path))
        images = np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2))
        labels = content["y"].reshape(-1).astype(np.int64)
    except Exception as error:  # a damaged file raises anything
        raise RunError(f"{path} cannot be read: {reason(error)}") from error
    if images.shape[1:] != (32, 32, 3) or images.dtype != np.uint8 or len(images) != len(labels):
        raise RunError(f"{path} must hold images of 32x32 and a label for each, not {images.shape} and {labels.shape}")
    if labels.min() < 1 or labels.max() > 10:
        raise RunError(f"{path} has labels from {labels.min()} to {labels.max()}, not 1 to 10")
    return canonical(images, labels % 10)
