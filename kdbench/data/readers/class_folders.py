"""Listings of class folders: a folder for each class, and the image files in it, which are not opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kdbench.data.readers import images
from kdbench.data.readers.listing import Files
from kdbench.errors import RunError
from kdbench.words import count

ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2"))
"""Endings of image files, of `images.FORMATS`; a file with another ending is passed by."""

_PARTS = ("train", "val", "test")


class Part(NamedTuple):
    """One part of a dataset, such as its training images.

    Attributes:
        by_class: paths of the image files of each class, relative to the root, by name.
        others: files that are not images by their ending.
    """

    by_class: dict[str, list[str]]
    others: list[str]


def of(root: Path, part: str, inner: str = "") -> Part:
    """The class folders ROOT/PART/CLASS/INNER.

    Raises:
        RunError: there are none, or one of them is empty or holds folders.
    """
    folder = root / part
    names = images.class_names(folder)
    if not names:
        raise RunError(f"{folder} has no class folders" + one_level_off(folder))
    by_class: dict[str, list[str]] = {}
    others: list[str] = []
    for name in names:
        place = "/".join(filter(None, (part, name, inner)))
        by_class[name], passed_by = files(root, place)
        others += passed_by
    return Part(by_class, others)


def files(root: Path, place: str) -> tuple[list[str], list[str]]:
    """The image files of one folder by name, and its other files, both relative to the root.

    Raises:
        RunError: the folder is missing, holds other folders, or no image.
    """
    found: list[str] = []
    others: list[str] = []
    try:
        with os.scandir(root / place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if images.is_left_behind(entry.name):
                    continue
                if not entry.is_file():
                    raise RunError(f"{entry.path} is not a file; a class folder holds nothing but image files")
                kind = found if os.path.splitext(entry.name)[1].lower() in ENDINGS else others
                kind.append(f"{place}/{entry.name}" if place else entry.name)
    except FileNotFoundError:
        raise RunError(f"{root / place} is missing") from None
    except NotADirectoryError:
        raise RunError(f"{root / place} is not a folder") from None
    if not found:
        raise RunError(f"the class folder {root / place} " + ("holds no image files" if others else "is empty"))
    return found, others


def labelled(by_class: Mapping[str, Sequence[str]], classes: Sequence[str]) -> Files:
    """The files of all classes, in the order of the classes and of their names."""
    import numpy as np

    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(by_class[name]) for name in classes])
    return Files(tuple(path for name in classes for path in by_class[name]), labels)


def check_equal(root: Path, parts: Mapping[str, Iterable[str]]) -> None:
    """Compare the class names of two parts.

    Raises:
        RunError: a class folder is in one of them only; the sentence names it.
    """
    (one, ours), (other, theirs) = ((part, set(names)) for part, names in parts.items())
    for here, there, more in ((one, other, ours - theirs), (other, one, theirs - ours)):
        if more:
            raise RunError(f"{root / here / min(more)} is a class folder that {root / there} does not have")


def passed_by(root: Path, others: Sequence[str | Path]) -> tuple[str, ...]:
    """A note about the files that are not images, if there are any."""
    names = list(dict.fromkeys(Path(other).name for other in others))
    listed = ", ".join(names[:5]) + ", …" * (len(names) > 5)
    return (f"{count(len(others), 'file')} in {root} passed by, not being images: {listed}",) if others else ()


def one_level_off(folder: Path) -> str:
    """The end of a sentence about a folder that is not a dataset, if the one above it or one inside it looks like one."""
    for part in (folder, folder.parent):
        if part.name in _PARTS and sum((part.parent / name).is_dir() for name in _PARTS) > 1:
            return f"; is {part.parent} the folder of the dataset?"
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and (path / "train").is_dir()]
    return f"; did you mean --data {inside[0]}?" if len(inside) == 1 else ""
