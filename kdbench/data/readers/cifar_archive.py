"""The archives of CIFAR-10 and CIFAR-100 as their authors publish them, packed or unpacked.

Every file is compared with the checksum that torchvision has of it before anything in it is looked at, and nothing is
unpacked to disk: an archive of someone else's is refused as it is.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import pickle
import re
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import RunError, UserError

if TYPE_CHECKING:
    import numpy as np

TIMEOUT = 20
"""Seconds after which a server that does not answer is given up: compute nodes often drop packets instead of refusing."""


@dataclass(frozen=True)
class _Archive:
    """The differences between the two: the class in torchvision.datasets, names on disk, and the archive's size in bytes."""

    torchvision: str
    packed: str
    unpacked: str
    size: int


_ARCHIVES = {
    "cifar10": _Archive("CIFAR10", "cifar-10-python.tar.gz", "cifar-10-batches-py", 170_498_071),
    "cifar100": _Archive("CIFAR100", "cifar-100-python.tar.gz", "cifar-100-python", 169_001_437),
}


class _Damaged(Exception):
    """A file that is not the published one; the message names it."""


def archives_in(source: str, folder: Path) -> tuple[Path, ...]:
    """The unpacked archive and the archive of a source, as far as they are there.

    Looked for in the data folder and in a folder of the source's name in it (cifar10, CIFAR-10); if the data folder is
    itself of that name, or the unpacked archive, also next to it.
    """
    names = _ARCHIVES[source]
    unpacked = [folder] if _is_unpacked(source, folder) else []
    bases = [folder, *_named(source, folder)]
    if unpacked or _is_named(source, folder.name):
        bases.append(folder.parent)
    unpacked += [path for base in bases if (path := base / names.unpacked).is_dir()]
    packed = [path for base in bases if (path := base / names.packed).is_file()]
    return (*unpacked[:1], *packed[:1])


def _named(source: str, folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _is_named(source, e.name) and e.is_dir()]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _is_named(source: str, name: str) -> bool:
    return re.sub("[-_ ]", "", name.lower()) == source


def _is_unpacked(source: str, folder: Path) -> bool:
    names = _ARCHIVES[source]
    files = {"cifar10": ("batches.meta", "data_batch_1"), "cifar100": ("meta", "train")}[source]
    return folder.name == names.unpacked or all((folder / file).is_file() for file in files)


def read(
    source: str, archives: Sequence[Path]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], tuple[str, ...]]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 for training and test, and the names of the classes.

    Args:
        archives: what `archives_in` returned; the first that is undamaged counts.

    Raises:
        RunError: all are damaged; the sentence says how.
    """
    defects = []
    for path in archives:
        try:
            return _parts(source, _contents_of_folder(path) if path.is_dir() else _contents_of_tar(source, path))
        except _Damaged as error:
            defects.append(str(error))
    raise RunError(f"{'; '.join(defects)}; get it again, or delete it, and it is downloaded")


def _parts(
    source: str, content: Callable[[str, str], bytes]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], tuple[str, ...]]:
    import numpy as np

    published = _published(source)

    def part(files: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        batches = [_unpickled(content(name, md5)) for name, md5 in files]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = [label for batch in batches for label in batch.get("labels") or batch["fine_labels"]]
        return images, np.asarray(labels, dtype=np.int64)

    meta = _unpickled(content(published.meta["filename"], published.meta["md5"]))
    return part(published.train_list), part(published.test_list), tuple(meta[published.meta["key"]])


def _published(source: str) -> Any:
    """The class of torchvision that lists the files of a source and their checksums."""
    from torchvision import datasets

    return getattr(datasets, _ARCHIVES[source].torchvision)


def _contents_of_folder(folder: Path) -> Callable[[str, str], bytes]:
    def content(name: str, md5: str) -> bytes:
        path = folder / name
        if not path.is_file():
            raise _Damaged(f"{path} is missing")
        return _checked(path.read_bytes(), md5, str(path))

    return content


def _contents_of_tar(source: str, path: Path) -> Callable[[str, str], bytes]:
    size, names, published = path.stat().st_size, _ARCHIVES[source], _published(source)
    md5 = _md5_of(path)
    if md5 != published.tgz_md5:
        how = "incomplete" if size < names.size else "damaged, or another file"
        raise _Damaged(
            f"{path} is {how}: {size} bytes with md5 {md5}, while the archive has {names.size} bytes with md5 "
            f"{published.tgz_md5}"
        )
    contents = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                inner = member.name.removeprefix(f"{names.unpacked}/")
                if member.isreg() and (file_in_tar := tar.extractfile(member)):
                    contents[inner] = file_in_tar.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _Damaged(f"{path} is damaged: {error}") from error

    def content(name: str, md5: str) -> bytes:
        return _checked(contents.get(name, b""), md5, f"{name} in {path}")

    return content


def _md5_of(path: Path) -> str:
    # The only checksum that is published; no other file with that of the archive can be made.
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _checked(content: bytes, md5: str, what: str) -> bytes:
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != md5:
        raise _Damaged(f"{what} is damaged: {len(content)} bytes with md5 {actual}, not {md5}")
    return content


class _Unpickler(pickle.Unpickler):
    """Makes arrays and plain values alone."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.partition(".")[0], name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


_ARRAY_PARTS = {("numpy", name) for name in ("_reconstruct", "_frombuffer", "ndarray", "dtype")} | {
    ("_codecs", "encode")
}


def _unpickled(content: bytes) -> dict[str, Any]:
    batch: dict[str, Any] = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    return batch


def download(source: str, folder: Path) -> Path:
    """Download the archive of a source to the data folder; nothing is left there of a download that fails.

    Raises:
        UserError: there is no network, the folder cannot be written, or what came is not the archive.
    """
    names, published = _ARCHIVES[source], _published(source)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            arriving = Path(temporary) / names.packed
            with urllib.request.urlopen(published.url, timeout=TIMEOUT) as answer, arriving.open("wb") as file:
                shutil.copyfileobj(answer, file)
            md5 = _md5_of(arriving)
            if md5 != published.tgz_md5:
                raise OSError(f"{arriving.stat().st_size} bytes came, with md5 {md5} instead of {published.tgz_md5}")
            return arriving.replace(folder / names.packed)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"no images of {source} in {folder}, and the download failed ({getattr(error, 'reason', error)}): "
            f"put {names.packed} there, or images as {source}/train/CLASS/NAME.png and {source}/test/CLASS/NAME.png"
        ) from error
