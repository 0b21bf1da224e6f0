"""Any images in class folders: the user's own data, without a gin file or a reader of their own.

DIR/train/CLASS/NAME.jpg and DIR/test/CLASS/…     without test/, val/ is the test set
DIR/CLASS/NAME.jpg                                a fifth of each class becomes the test set
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from kdbench.config.reading import Reading
from kdbench.data.readers import class_folders
from kdbench.data.readers.listing import Listing
from kdbench.errors import RunError

READERS = {"imagefolder": ("read", {"needs_folder": True, "takes": ("size", "skip_broken")})}

TESTS = ("test", "val", "valid", "validation")
"""Names of the folder with the test images, the first that is there."""

TEST_SHARE = 0.2
"""Share of each class that becomes the test set where there is one folder for all."""


def read(source: str, folder: Path | None, reading: Reading) -> Listing:
    """The class folders of a data folder, with classes in alphabetical order, or by number where each begins with one.

    Raises:
        RunError: there are no class folders, a class is in one part only, or a class folder holds no images.
    """
    assert folder is not None  # registry.check_folder has made sure
    if not (folder / "train").is_dir():
        return _split(folder, reading)
    test = next((name for name in TESTS if (folder / name).is_dir()), None)
    if test is None:
        raise RunError(f"{folder} has train/ and no folder with test images (test/ or val/)")
    parts = {name: class_folders.of(folder, name) for name in ("train", test)}
    class_folders.check_equal(folder, {name: part.by_class for name, part in parts.items()})
    train, tested = parts.values()
    classes = tuple(train.by_class)
    return Listing(
        folder,
        class_folders.labelled(train.by_class, classes),
        class_folders.labelled(tested.by_class, classes),
        classes,
        reading.side,
        class_folders.passed_by(folder, [*train.others, *tested.others]),
    )


def _split(folder: Path, reading: Reading) -> Listing:
    if off := class_folders.one_level_off(folder):
        raise RunError(f"{folder} has no train/ and test/" + off)
    part = class_folders.of(folder, "")
    classes = tuple(part.by_class)
    for name, paths in part.by_class.items():
        if len(paths) < 2:
            raise RunError(f"the class folder {folder / name} has one image, which cannot be for training and test")
    test = {name: _test_images(paths) for name, paths in part.by_class.items()}
    train = {name: [path for path in paths if path not in test[name]] for name, paths in part.by_class.items()}
    split = (
        f"{folder} has no train/ and test/: a fifth of each class, chosen by the names of the files, is the test set"
    )
    return Listing(
        folder,
        class_folders.labelled(train, classes),
        class_folders.labelled({name: sorted(paths) for name, paths in test.items()}, classes),
        classes,
        reading.side,
        (split, *class_folders.passed_by(folder, part.others)),
    )


def _test_images(paths: Sequence[str]) -> set[str]:
    # By a hash of the name, so that an image that is added or removed moves hardly any other.
    order = sorted(paths, key=lambda path: hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest())
    return set(order[: max(1, round(TEST_SHARE * len(paths)))])
