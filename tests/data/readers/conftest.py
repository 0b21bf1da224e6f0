"""Datasets of image files in their official layouts, in small, with real image files."""

import numpy as np
import pytest
from PIL import Image

WNIDS = ["n01443537", "n01629819", "n02099601"]


def _photograph(path, number=0, **options):
    """An image of a size of its own whose colour is its number's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((20 + number % 7, 26 - number % 5, 3), (9 * number) % 256, dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def imagefolder(root):
    for part, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("cat", "dog", "eel")):
            for number in range(count):
                _photograph(root / part / name / f"{number}.{'JPG' if number % 2 else 'png'}", 10 * label + number)


def tiny_imagenet(root):
    root.mkdir()
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(WNIDS)))
    (root / "words.txt").write_text("n01443537\tgoldfish\nn01629819\tsalamander\nn09999999\tunused\n")
    lines = []
    for label, wnid in enumerate(WNIDS):
        for number in range(4):
            _photograph(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 10 * label + number)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("x 0 0 1 1\n")
        for number in range(2):
            _photograph(root / "val" / "images" / f"val_{2 * number + label}_{label}.JPEG", 10 * label + number)
            lines.append(f"val_{2 * number + label}_{label}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))


def cub200(root):
    root.mkdir()
    lines = {name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")}
    for number in range(1, 13):
        species = 1 + number % 3
        name = f"00{species}.Bird/{number}.jpg"
        _photograph(root / "images" / name, number)
        lines["images"].append(f"{number} {name}\n")
        lines["image_class_labels"].append(f"{number} {species}\n")
        lines["train_test_split"].append(f"{number} {int(number <= 6)}\n")
        lines["bounding_boxes"].append(f"{number} 2.0 3.0 10.0 8.0\n")
    for name, content in lines.items():
        (root / f"{name}.txt").write_text("".join(content))
    (root / "classes.txt").write_text("1 001.Albatross\n2 002.Auklet\n3 003.Bunting\n")


def imagenet(root):
    for label, wnid in enumerate(WNIDS):
        for number in range(4):
            _photograph(root / "train" / wnid / f"{wnid}_{number}.JPEG", 10 * label + number)
        for number in range(2):
            _photograph(root / "val" / wnid / f"ILSVRC2012_val_{2 * label + number:08}.JPEG", 10 * label + number)


LAYOUTS = {function.__name__: function for function in (imagefolder, tiny_imagenet, cub200, imagenet)}


@pytest.fixture
def photograph():
    """Saves an image of a size of its own whose colour is that of its number: `photograph(path, number=0, **options)`."""
    return _photograph


@pytest.fixture
def laid(tmp_path):
    """Writes a small dataset in the layout of its name, to the folder "data" or another one, and returns the folder."""

    def write(name, root=tmp_path / "data"):
        LAYOUTS[name](root)
        return root

    return write
