"""CUB-200-2011 (Wah et al., 2011): 200 species of birds, 5,994 training and 5,794 test images, in its own layout.

    DIR/images.txt, image_class_labels.txt, train_test_split.txt, classes.txt, bounding_boxes.txt
    DIR/images/CLASS/NAME.jpg

DIR may also be the folder above.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.config.reading import Reading
from kdbench.data.readers import tables
from kdbench.data.readers.listing import Files, Listing
from kdbench.errors import RunError

if TYPE_CHECKING:
    import numpy as np

READERS = {
    "cub200": (
        "read",
        {"needs_folder": True, "files": ("images.txt", "*/images.txt"), "takes": ("size", "boxes", "skip_broken")},
    )
}


def read(source: str, folder: Path | None, reading: Reading) -> Listing:
    """The images of CUB-200-2011, or of a part of its classes, cut to their bounding boxes if `reading` asks for it.

    Raises:
        RunError: a file is missing, a line is not as it should be, or the files contradict each other.
    """
    import numpy as np

    assert folder is not None  # registry.check_folder has made sure
    root = tables.root(folder, "images.txt", "CUB-200-2011", "CUB_200_2011")
    paths = _by_id(root / "images.txt")
    class_names = _by_id(root / "classes.txt")
    class_of = _by_id(root / "image_class_labels.txt")
    is_train = _by_id(root / "train_test_split.txt")
    for name, column in (("image_class_labels.txt", class_of), ("train_test_split.txt", is_train)):
        if column.keys() != paths.keys():
            wrong = min(column.keys() ^ paths.keys())
            raise RunError(
                f"{root / name} and {root / 'images.txt'} do not name the same images: {wrong} is in one only"
            )
    if odd := [image for image in paths if is_train[image] not in ("0", "1")]:
        raise RunError(f"{root / 'train_test_split.txt'}: the image {odd[0]} has {is_train[odd[0]]!r}, neither 1 nor 0")
    if twice := [name for name, uses in Counter(class_names.values()).items() if uses > 1]:
        raise RunError(f"{root / 'classes.txt'} has two classes of the name {twice[0]}")
    present = sorted({class_of[image] for image in paths}, key=_number)
    if unnamed := [each for each in present if each not in class_names]:
        raise RunError(f"{root / 'classes.txt'} does not name the class {unnamed[0]}")
    label = {name: number for number, name in enumerate(present)}
    boxes = _boxes(root / "bounding_boxes.txt", paths) if reading.boxes else None
    parts = []
    for wanted in ("1", "0"):
        images = [image for image in sorted(paths, key=_number) if is_train[image] == wanted]
        absent = sorted({*present} - {class_of[image] for image in images}, key=_number)
        if absent:
            kind = "training" if wanted == "1" else "test"
            raise RunError(
                f"{root / 'train_test_split.txt'} has no {kind} images of the class {class_names[absent[0]]}"
            )
        missing = next((image for image in images if not (root / "images" / paths[image]).is_file()), None)
        if missing is not None:
            raise RunError(f"{root / 'images' / paths[missing]} is missing, which {root / 'images.txt'} names")
        labels = np.array([label[class_of[image]] for image in images], dtype=np.int64)
        own = None if boxes is None else np.array([boxes[image] for image in images]).reshape(-1, 4)
        parts.append(Files(tuple(f"images/{paths[image]}" for image in images), labels, own))
    return Listing(root, parts[0], parts[1], tuple(class_names[name] for name in present), reading.side)


def _by_id(path: Path) -> dict[str, str]:
    """The second column of a file by the first, which is a number."""
    rows = tables.rows(path, 2)
    for number, (identifier, _) in enumerate(rows, start=1):
        if not identifier.isdecimal():
            raise RunError(f"{path}, line {number}: a number and a value are expected, not {identifier!r:.80}")
    result = {identifier: value.strip() for identifier, value in rows}
    if len(result) < len(rows):
        raise RunError(f"{path} has the same number in two lines")
    return result


def _boxes(path: Path, images: dict[str, str]) -> dict[str, np.ndarray]:
    """Left, top, right and bottom in whole pixels, from lines of number, x, y, width and height."""
    import numpy as np

    boxes = {
        str(int(image)): np.array([np.floor(x), np.floor(y), np.ceil(x + width), np.ceil(y + height)], dtype=np.int64)
        for image, x, y, width, height in tables.numbers(path, 5)
    }
    if missing := [image for image in images if image not in boxes]:
        raise RunError(f"{path} has no box for the image {missing[0]} ({images[missing[0]]})")
    return boxes


def _number(text: str) -> int:
    return int(text)
