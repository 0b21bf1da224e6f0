"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 60,000 training and 10,000 test images of 28×28 grey pixels.

DIR/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]      also in DIR/fashion_mnist, DIR/FashionMNIST[/raw]
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.data.readers import published
from kdbench.data.readers.arrays import Arrays, canonical
from kdbench.errors import RunError, reason

if TYPE_CHECKING:
    import numpy as np

READERS = {
    "fashion_mnist": (
        "read",
        {
            "needs_folder": True,
            "classes": 10,
            "files": ("train-images-idx3-ubyte*", "*/train-images-idx3-ubyte*", "*/raw/train-images-idx3-ubyte*"),
        },
    )
}

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FOLDERS = ("fashion_mnist", "FashionMNIST", "FashionMNIST/raw")


def read(source: str, folder: Path | None) -> Arrays:
    """The images (N, 28, 28, 1).

    Raises:
        RunError: a file is missing or damaged.
    """
    assert folder is not None  # registry.check_folder has made sure
    return Arrays(*_part(folder, "train"), *_part(folder, "t10k"), CLASSES)


def _part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    images, place = _idx(folder, f"{part}-images-idx3-ubyte", 3)
    labels, _ = _idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        raise RunError(f"{place} must hold images of 28x28, one for each of {len(labels):,} labels, not {images.shape}")
    if not len(labels) or labels.max() >= len(CLASSES):
        raise RunError(f"the labels of {place} must be 0 to {len(CLASSES) - 1}")
    return canonical(images[..., None], labels.astype(np.int64))


def _idx(folder: Path, name: str, dimensions: int) -> tuple[np.ndarray, Path]:
    """An array of bytes in the format IDX: a magic number, the sizes, the bytes."""
    import numpy as np

    places = (folder, *(folder / each for each in _FOLDERS))
    plain = next((place / name for place in places if (place / name).is_file()), None)
    path = plain or published.file(folder, _FOLDERS, f"{name}.gz", "https://github.com/zalandoresearch/fashion-mnist")
    try:
        content = path.read_bytes() if plain else gzip.decompress(path.read_bytes())
        magic, *sizes = struct.unpack_from(f">{1 + dimensions}I", content)
        if magic != 0x0800 + dimensions:
            raise ValueError("it is not an IDX file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 * (1 + dimensions)).reshape(sizes), path
    except Exception as error:  # a damaged file raises anything
        raise RunError(f"{path} cannot be read: {reason(error)}") from error
