"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from class folders or from the archive, cached once they are decoded.

Looked for in the data folder DIR, in this order:

    DIR/cifar100/{train,test}/CLASS/NAME.png     or another image type; DIR may also be the folder cifar100 itself
    DIR/cifar-100-python[.tar.gz]                the archive, or what was in it; downloaded if it is not there

The cache is DIR/.kdbench/cifar100.npz and may be deleted at any time. It does not notice an image that was overwritten
in place under its old name: looking at 60,000 files in every run would cost more than it is worth.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.data.readers import cache
from kdbench.data.readers.arrays import Arrays, canonical
from kdbench.errors import RunError, UserError

if TYPE_CHECKING:
    import numpy as np

READERS = {
    "cifar10": ("read", {"needs_folder": True, "classes": 10}),
    "cifar100": ("read", {"needs_folder": True, "classes": 100}),
}

SHAPE = (32, 32, 3)


@dataclass(frozen=True)
class _Cifar:
    """The differences between the two: the number of classes, the class in torchvision.datasets, the names on disk."""

    classes: int
    torchvision: str
    archive: str
    extracted: str


_CIFARS = {
    "cifar10": _Cifar(10, "CIFAR10", "cifar-10-python.tar.gz", "cifar-10-batches-py"),
    "cifar100": _Cifar(100, "CIFAR100", "cifar-100-python.tar.gz", "cifar-100-python"),
}


def read(source: str, folder: Path | None) -> Arrays:
    """The images (N, 32, 32, 3) of "cifar10" or "cifar100" from the data folder.

    Raises:
        UserError: the data is not in `folder` and cannot be downloaded.
        RunError: a file or class folder is not what it should be.
    """
    import numpy as np

    assert folder is not None  # registry.check_folder has made sure
    path = folder / ".kdbench" / f"{source}.npz"
    arrays = _cached(path, source, folder)
    if arrays is not None:
        return arrays
    with cache.lock(path.parent):
        arrays = _cached(path, source, folder)  # another process may have decoded while this one waited
        if arrays is not None:
            return arrays
        # Taken before decoding, so that what changes meanwhile makes the cache look old and not new.
        fingerprint = _fingerprint(source, folder)
        root = _class_folders(source, folder)
        arrays = _from_folders(root, _CIFARS[source].classes) if root else _from_archive(source, folder)
        fingerprint = fingerprint or _fingerprint(source, folder)  # there was nothing before the download
        if fingerprint:
            cache.store(path, fingerprint, {**vars(arrays), "classes": np.array(arrays.classes)})
        return arrays


def _class_folders(source: str, folder: Path) -> Path | None:
    """The folder with train/ and test/ in it, or None if the images are not there as files."""
    for root in (folder / source, folder):
        if (root / "train").is_dir() or (root / "test").is_dir():
            return root
    return None


def _fingerprint(source: str, folder: Path) -> str | None:
    """Fingerprint of the files that the arrays are decoded from; None if there are none."""
    paths: list[Path]
    if root := _class_folders(source, folder):
        paths = [p for part in ("train", "test") if (root / part).is_dir() for p in _visible(root / part)]
    elif (archive := folder / _CIFARS[source].archive).is_file():
        paths = [archive]
    elif (extracted := folder / _CIFARS[source].extracted).is_dir():
        paths = _visible(extracted)
    else:
        return None
    return cache.fingerprint(paths, source)


def _cached(path: Path, source: str, folder: Path) -> Arrays | None:
    fingerprint = _fingerprint(source, folder)
    content = cache.load(path, fingerprint) if fingerprint else None
    if content is None:
        return None
    try:
        classes = tuple(str(name) for name in content.pop("classes"))
        arrays = Arrays(**content, classes=classes)
    except (KeyError, TypeError, ValueError):
        return None
    fits = arrays.train_images.shape[1:] == SHAPE and len(classes) == _CIFARS[source].classes
    return arrays if fits else None


def _visible(folder: Path) -> list[Path]:
    """The contents of a folder, by name, without the hidden files of file managers."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _from_folders(root: Path, classes: int) -> Arrays:
    names: dict[str, list[str]] = {}
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise RunError(f"{root / part} is missing: {root} must hold train/ and test/ with a folder for each class")
        names[part] = [path.name for path in _visible(root / part) if path.is_dir()]
    for one, other in (("train", "test"), ("test", "train")):
        if more := sorted(set(names[one]) - set(names[other])):
            raise RunError(f"{root / one / more[0]} is a class folder that {root / other} does not have")
    if len(names["train"]) != classes:
        raise RunError(f"{root / 'train'} has {len(names['train'])} class folders, not {classes}")
    train = _decode_classes([root / "train" / name for name in names["train"]])
    test = _decode_classes([root / "test" / name for name in names["test"]])
    return Arrays(*train, *test, tuple(names["train"]))


def _decode_classes(folders: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) and labels (N,) of class folders in label order."""
    import numpy as np

    # Pillow lets go of the GIL only inside its decoders, little for images this small: the threads are there to wait
    # for the disk or the network together. A task is a whole class; 60,000 tasks would cost more than they bring.
    with ThreadPoolExecutor(max_workers=4) as pool:
        parts = list(pool.map(_decode_class, folders))
    labels = np.repeat(np.arange(len(parts), dtype=np.int64), [len(part) for part in parts])
    return canonical(np.concatenate(parts), labels)


def _decode_class(folder: Path) -> np.ndarray:
    """The images (N, 32, 32, 3) of one class folder."""
    import numpy as np

    files = _visible(folder)
    if not files:
        raise RunError(f"class folder {folder} is empty")
    return np.stack([_decode(file) for file in files])


def _decode(file: Path) -> np.ndarray:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(file) as image:
            mode, size = image.mode, image.size
            if mode == "RGB" and size == SHAPE[:2]:
                return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RunError(f"{file} cannot be read as an image: {error}") from error
    raise RunError(f"{file} must be 32x32 RGB, not {size[0]}x{size[1]} {mode}")


def _from_archive(source: str, folder: Path) -> Arrays:
    import numpy as np
    from torchvision import datasets

    names = _CIFARS[source]
    try:
        with _impatient():
            train, test = (getattr(datasets, names.torchvision)(folder, part, download=True) for part in (True, False))
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"no images of {source} in {folder}, and the download failed ({error}): put {names.archive} there, "
            f"or images as {source}/train/CLASS/NAME.png and {source}/test/CLASS/NAME.png"
        ) from error
    arrays = (canonical(part.data, np.asarray(part.targets, dtype=np.int64)) for part in (train, test))
    return Arrays(*next(arrays), *next(arrays), tuple(train.classes))


@contextmanager
def _impatient(seconds: float = 20) -> Iterator[None]:
    """Give up on a server that does not answer: networks of compute nodes often drop packets instead of refusing."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
