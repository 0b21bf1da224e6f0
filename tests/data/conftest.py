"""CIFAR-10 in small: class folders of random images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdbench.data.readers import images

CLASSES = "airplane", "bird", "car", "cat", "deer", "dog", "frog", "horse", "ship", "truck"


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """A data folder with 10 classes of 3 images for training and 2 for the test."""
    rng = np.random.default_rng(0)
    for part, count in {"train": 3, "test": 2}.items():
        for name in CLASSES:
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Fills with the files that are decoded."""
    files: list[Path] = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda file, size: files.append(file) or decode(file, size))
    return files
