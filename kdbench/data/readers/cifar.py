"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from class folders or from the archive, cached once they are decoded.

Looked for in the data folder DIR, in this order:

    DIR/cifar100/{train,test}/CLASS/NAME.png     or another image type; DIR may also be the folder cifar100 itself
    DIR/cifar-100-python[.tar.gz]                the archive, or what was in it; also in DIR/cifar100, or as DIR itself

The archive is downloaded to DIR if there is neither. The cache (`cache.folders`) does not notice an image that was
overwritten in place under its old name: looking at 60,000 files in every run would cost more than it is worth.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from kdbench.config.reading import AS_THEY_ARE, Reading
from kdbench.data.readers import cache, cifar_archive, class_folders, images, superclasses
from kdbench.data.readers.arrays import Arrays, canonical
from kdbench.errors import RunError

READERS = {
    "cifar10": ("read", {"needs_folder": True, "classes": 10, "present": "is_present"}),
    "cifar100": ("read", {"needs_folder": True, "classes": 100, "present": "is_present", "takes": ("labels",)}),
}

SHAPE = (32, 32, 3)
CLASSES = {"cifar10": 10, "cifar100": 100}

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class _Place:
    """Where the images of a source lie.

    Attributes:
        root: the folder with train/ and test/ in it, if the images are there as files.
        archives: otherwise, the unpacked archive and the archive, as far as they are there.
    """

    root: Path | None
    archives: tuple[Path, ...] = ()


def is_present(source: str, folder: Path) -> bool:
    """True if the images of "cifar10" or "cifar100" are in the data folder, so that `read` does not download them."""
    return _place(source, folder) is not None


def read(source: str, folder: Path | None, reading: Reading = AS_THEY_ARE) -> Arrays:
    """The images (N, 32, 32, 3) of "cifar10" or "cifar100" from the data folder, the latter with fine or coarse labels.

    Raises:
        UserError: the data is not in `folder` and cannot be downloaded.
        RunError: a file or class folder is not what it should be.
    """
    assert folder is not None  # registry.check_folder has made sure
    arrays = _read(source, folder)
    return _coarse(arrays) if reading.labels == "coarse" else arrays


def _coarse(arrays: Arrays) -> Arrays:
    import numpy as np

    label = np.array(superclasses.coarse_labels(arrays.classes), dtype=np.int64)
    train = canonical(arrays.train_images, label[arrays.train_labels])
    return Arrays(
        *train,
        *canonical(arrays.test_images, label[arrays.test_labels]),
        tuple(superclasses.SUPERCLASSES),
        arrays.notes,
    )


def _read(source: str, folder: Path) -> Arrays:
    arrays = _cached(source, folder)
    if arrays is not None:
        return arrays
    writable = cache.writable(folder)
    with cache.lock(writable[0]) if writable else nullcontext():
        arrays = _cached(source, folder)  # another process may have decoded while this one waited
        if arrays is not None:
            return arrays
        place = _place(source, folder)
        if place is None:
            place = _Place(None, (cifar_archive.download(source, folder),))
        # Taken before decoding, so that what changes meanwhile makes the cache look old and not new.
        fingerprint = _fingerprint(source, place)
        arrays = _from_folders(place.root, CLASSES[source]) if place.root else _from_archive(source, place.archives)
        return _kept(arrays, source, folder, fingerprint, writable)


def _place(source: str, folder: Path) -> _Place | None:
    """Where the images are; None if they are nowhere in the data folder."""
    archives = cifar_archive.archives_in(source, folder)
    for root in (folder / source, folder):
        if not (root / "train").is_dir() and not (root / "test").is_dir():
            continue
        # Next to the archive, a train/ that does not bear the dataset's name may be another dataset's.
        if root.name == source or not archives or _may_be(source, root):
            return _Place(root)
    return _Place(None, archives) if archives else None


def _may_be(source: str, root: Path) -> bool:
    """True if a folder train/ has as many classes as a source, and images of its size."""
    try:
        names = images.class_names(root / "train")
        return len(names) == CLASSES[source] and images.first_size(root / "train" / names[0]) == SHAPE[:2]
    except (OSError, RunError):
        return False


def _fingerprint(source: str, place: _Place) -> str:
    """Fingerprint of the files that the arrays are decoded from."""
    if root := place.root:
        paths = [p for part in ("train", "test") if (root / part).is_dir() for p in _visible(root / part)]
    else:
        paths = [p for path in place.archives for p in (_visible(path) if path.is_dir() else [path])]
    return cache.fingerprint(paths, source)


def _visible(folder: Path) -> list[Path]:
    """The contents of a folder, by name, without hidden files."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _cached(source: str, folder: Path) -> Arrays | None:
    place = _place(source, folder)
    if place is None:
        return None
    fingerprint = _fingerprint(source, place)
    for kept in cache.folders(folder):
        content = cache.load(kept / f"{source}.npz", fingerprint) if cache.is_trusted(kept, folder) else None
        if content is None:
            continue
        try:
            classes = tuple(str(name) for name in content["classes"])
            train_images, train_labels, test_images, test_labels = (content[name] for name in _ARRAYS)
            arrays = Arrays(train_images, train_labels, test_images, test_labels, classes)
            whole = str(content["digest"]) == arrays.digest()
        except (KeyError, TypeError, ValueError):
            continue
        if whole and arrays.train_images.shape[1:] == SHAPE and len(classes) == CLASSES[source]:
            return arrays
    return None


def _kept(arrays: Arrays, source: str, folder: Path, fingerprint: str, writable: list[Path]) -> Arrays:
    """The arrays, stored in the first cache that takes them; with a note if none does."""
    import numpy as np

    content = {
        **{name: getattr(arrays, name) for name in _ARRAYS},
        "classes": np.array(arrays.classes),
        "digest": np.array(arrays.digest()),
    }
    if any(cache.store(kept / f"{source}.npz", fingerprint, content) for kept in writable):
        return arrays
    places = " nor ".join(str(kept) for kept in cache.folders(folder))
    note = f"every process decodes the images of {source} again, because neither {places} can be written"
    return replace(arrays, notes=(*arrays.notes, note))


def _from_folders(root: Path, classes: int) -> Arrays:
    names: dict[str, list[str]] = {}
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise RunError(f"{root / part} is missing: {root} must hold train/ and test/ with a folder for each class")
        names[part] = images.class_names(root / part)
    class_folders.check_equal(root, names)
    if len(names["train"]) != classes:
        raise RunError(f"{root / 'train'} has {len(names['train'])} class folders, not {classes}")
    train, test = (
        images.read_classes([root / part / name for name in names["train"]], SHAPE[:2]) for part in ("train", "test")
    )
    return Arrays(
        *canonical(train.images, train.labels),
        *canonical(test.images, test.labels),
        tuple(names["train"]),
        class_folders.passed_by(root, [*train.others, *test.others]),
    )


def _from_archive(source: str, archives: tuple[Path, ...]) -> Arrays:
    train, test, classes = cifar_archive.read(source, archives)
    return Arrays(*canonical(*train), *canonical(*test), classes)
