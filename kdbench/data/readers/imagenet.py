"""ImageNet (ILSVRC 2012; Russakovsky et al., 2015): 1,000 classes, 1,281,167 training and 50,000 validation images.

    DIR/train/WNID/NAME.JPEG
    DIR/val/WNID/NAME.JPEG      or the files of the official archive side by side in DIR/val, with one of
    DIR/ILSVRC2012_devkit_t12/data/{ILSVRC2012_validation_ground_truth.txt,meta.mat}
    DIR/LOC_val_solution.csv

The validation images are the test set: the official test labels are not published.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdbench.config.reading import Reading
from kdbench.data.readers import class_folders, images, tables
from kdbench.data.readers.listing import Listing
from kdbench.errors import RunError, reason

READERS = {
    "imagenet": ("read", {"needs_folder": True, "files": ("train/n*/*.JPEG",), "takes": ("size", "skip_broken")})
}

DEVKIT = "ILSVRC2012_devkit_t12/data"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"


def read(source: str, folder: Path | None, reading: Reading) -> Listing:
    """The image files of ImageNet, or of a part of its classes; labels in the order of the sorted WordNet ids.

    Raises:
        RunError: the folder has another layout, a file is missing, or the labels of the validation images are.
    """
    assert folder is not None  # registry.check_folder has made sure
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            archives = sorted(path.name for path in folder.glob("ILSVRC2012_*.tar"))
            how = f"; unpack {', '.join(archives)} into train/WNID/ and val/" if archives else ""
            raise RunError(f"{folder / part} is missing{how or class_folders.one_level_off(folder)}")
    train = class_folders.of(folder, "train")
    wnids = sorted(train.by_class)
    flat = not images.class_names(folder / "val")
    test = class_folders.Part(*_flat(folder, wnids)) if flat else class_folders.of(folder, "val")
    class_folders.check_equal(folder, {"train": train.by_class, "val": test.by_class})
    return Listing(
        folder,
        class_folders.labelled(train.by_class, wnids),
        class_folders.labelled(test.by_class, wnids),
        tables.class_names(wnids, folder / "LOC_synset_mapping.txt"),
        reading.side,
        class_folders.passed_by(folder, [*train.others, *test.others]),
    )


def _flat(folder: Path, wnids: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The validation images of the official archive by class, and the files that are not images."""
    files, others = class_folders.files(folder, "val")
    names = [os.path.splitext(os.path.basename(path))[0] for path in files]
    wnid_of = _labels(folder, names)
    by_class: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    for name, path in zip(names, files, strict=True):
        wnid = wnid_of.get(name)
        if wnid is None:
            raise RunError(f"{folder / path} has no label in {folder / SOLUTION}")
        by_class.setdefault(wnid, []).append(path)
    return {wnid: paths for wnid, paths in by_class.items() if paths}, others


def _labels(folder: Path, names: Sequence[str]) -> Mapping[str, str]:
    """WordNet ids of validation images by their names, which are given in order and without endings."""
    if (folder / SOLUTION).is_file():
        table = tables.rows(folder / SOLUTION, 2, ",")[1:]
        return {name: prediction.split()[0] for name, prediction in table if prediction.strip()}
    place = next((path for path in (folder / DEVKIT, folder) if (path / TRUTH).is_file()), None)
    if place is None:
        raise RunError(
            f"the images in {folder / 'val'} have no labels: put them into class folders, or unpack the devkit "
            f"({DEVKIT}/{TRUTH}) to {folder}"
        )
    truth = [int(number) for (number,) in tables.numbers(place / TRUTH, 1)]
    if len(truth) != len(names):
        raise RunError(f"{place / TRUTH} has {len(truth)} labels for {len(names)} images in {folder / 'val'}")
    wnid_of = _synsets(place / "meta.mat")
    unknown = next((number for number in truth if number not in wnid_of), None)
    if unknown is not None:
        raise RunError(f"{place / TRUTH}: the class {unknown} is not in {place / 'meta.mat'}")
    return {name: wnid_of[number] for name, number in zip(names, truth, strict=True)}


def _synsets(path: Path) -> dict[int, str]:
    """WordNet ids by the number of their class in the ground truth."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(str(path), squeeze_me=True, struct_as_record=True)["synsets"]
        return {int(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in synsets}
    except Exception as error:  # a damaged file raises anything
        raise RunError(f"{path} cannot be read: {reason(error)}") from error
