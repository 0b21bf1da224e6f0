"""Tiny-ImageNet (Stanford CS231n, 2015) in its own layout: 200 classes of ImageNet at 64×64 pixels.

    DIR/wnids.txt, words.txt
    DIR/train/WNID/images/NAME.JPEG
    DIR/val/images/NAME.JPEG, val/val_annotations.txt

DIR may also be the folder above. The official test images have no published labels: the validation images are the test set.
"""

from __future__ import annotations

from pathlib import Path

from kdbench.config.reading import Reading
from kdbench.data.readers import class_folders, tables
from kdbench.data.readers.listing import Listing
from kdbench.errors import RunError

READERS = {
    "tiny_imagenet": (
        "read",
        {"needs_folder": True, "files": ("wnids.txt", "*/wnids.txt"), "takes": ("size", "skip_broken")},
    )
}


def read(source: str, folder: Path | None, reading: Reading) -> Listing:
    """The files of Tiny-ImageNet, or of a part of its classes; labels in the order of the sorted WordNet ids.

    Raises:
        RunError: a file or folder is missing, or a line of a text file is not as it should be.
    """
    assert folder is not None  # registry.check_folder has made sure
    root = tables.root(folder, "wnids.txt", "Tiny-ImageNet")
    wnids = sorted(line for (line,) in tables.rows(root / "wnids.txt", 1))
    if len(set(wnids)) < len(wnids):
        raise RunError(f"{root / 'wnids.txt'} names a class twice")
    train: dict[str, list[str]] = {}
    others: list[str] = []
    for wnid in wnids:
        train[wnid], passed_by = class_folders.files(root, f"train/{wnid}/images")
        others += passed_by
    test: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    present, passed_by = class_folders.files(root, "val/images")
    annotations = root / "val" / "val_annotations.txt"
    unlabelled = set(present)
    for number, (name, wnid, *_) in enumerate(tables.rows(annotations, 6, "\t"), start=1):
        if wnid not in test:
            raise RunError(f"{annotations}, line {number}: the class {wnid} is not in {root / 'wnids.txt'}")
        path = f"val/images/{name}"
        if path not in unlabelled:
            how = f"named twice, again in line {number} of {annotations}"
            raise RunError(
                f"{root / path} is "
                + (how if path in present else f"missing, which {annotations} names in line {number}")
            )
        unlabelled.remove(path)
        test[wnid].append(path)
    if unlabelled:
        raise RunError(f"{root / min(unlabelled)} has no line in {annotations}")
    for wnid, paths in test.items():
        if not paths:
            raise RunError(f"{annotations} has no image of the class {wnid}")
    return Listing(
        root,
        class_folders.labelled(train, wnids),
        class_folders.labelled(test, wnids),
        tables.class_names(wnids, root / "words.txt"),
        reading.side,
        class_folders.passed_by(root, [*others, *passed_by]),
    )
