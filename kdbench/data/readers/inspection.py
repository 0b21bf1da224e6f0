"""What is known of a dataset only when all its images are decoded: statistics, files that cannot be read, a checksum of all bytes.

The verdict on a listing is kept in the cache next to the data, so that runs which skip broken images decode no more than the
first one does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import files as files_
from kdbench.data.readers import cache, images, threads
from kdbench.data.readers.arrays import Arrays
from kdbench.data.readers.listing import Files, Listing
from kdbench.errors import RunError

if TYPE_CHECKING:
    import numpy as np

Progress = Callable[[int, int], None]
"""Called now and then with the number of images that are done, and of all."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of a dataset.

    Attributes:
        train, test: numbers of images.
        classes: number of classes.
        per_class: fewest and most training images of a class.
        sizes: width and height of the smallest, the median and the largest image by area, as they lie on disk.
        mean, std: of each channel of the training images, for pixel values in 0..1, as they are read.
    """

    train: int
    test: int
    classes: int
    per_class: tuple[int, int]
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """The result of decoding all files of a listing.

    Attributes:
        broken: a sentence for each file that cannot be read, by its path.
        sha256: checksum of the bytes of all files, with their labels.
    """

    broken: dict[str, str]
    sha256: str


def statistics(content: Arrays | Listing, progress: Progress = lambda done, total: None) -> Statistics:
    """The statistics of a dataset; decodes all its training images.

    Raises:
        RunError: an image cannot be read.
    """
    import numpy as np

    labels = content.train_labels
    counts = np.bincount(labels, minlength=len(content.classes))
    total, squares, pixels = np.zeros(content.channels), np.zeros(content.channels), 0
    for done, batch in _batches(content):
        values = batch.reshape(-1, content.channels).astype(np.float64) / 255
        total += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
        pixels += len(values)
        progress(done, len(labels))
    mean = total / pixels
    std = np.sqrt(squares / pixels - np.square(mean))
    return Statistics(
        train=len(labels),
        test=len(content.test_labels),
        classes=len(content.classes),
        per_class=(int(counts.min()), int(counts.max())),
        sizes=_sizes(content),
        mean=tuple(round(float(value), 4) for value in mean),
        std=tuple(round(float(value), 4) for value in std),
    )


def _batches(content: Arrays | Listing) -> Iterator[tuple[int, np.ndarray]]:
    """The training images (B, H, W, C), with the number of those that are done."""
    if isinstance(content, Arrays):
        batches = threads.of_chunks(
            lambda which: content.train_images[which.start : which.stop], len(content.train_images)
        )
    else:
        batches = content.batches(content.train)
    done = 0
    for batch in batches:
        done += len(batch)
        yield done, batch


def _sizes(content: Arrays | Listing) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    if isinstance(content, Arrays):
        height, width = content.train_images.shape[1:3]
        return ((width, height),) * 3
    paths = [content.root / path for path in content.train.paths]
    chunks = threads.of_chunks(lambda which: [images.size_of(paths[n]) for n in which], len(paths))
    sizes = sorted(chain.from_iterable(chunks), key=lambda size: (size[0] * size[1], size))
    return sizes[0], sizes[len(sizes) // 2], sizes[-1]


def verdict(listing: Listing, progress: Progress = lambda done, total: None) -> Verdict:
    """Decode every file of a listing."""
    broken: dict[str, str] = {}
    digest = hashlib.sha256()
    every = [(part, n) for part in (listing.train, listing.test) for n in range(len(part.paths))]
    done = 0
    for seen in threads.of_chunks(lambda which: [_look(listing, *every[n]) for n in which], len(every)):
        for path, sentence, checksum in seen:
            digest.update(checksum)
            if sentence:
                broken[path] = sentence
        done += len(seen)
        progress(done, len(every))
    return Verdict(broken, digest.hexdigest())


def _look(listing: Listing, part: Files, n: int) -> tuple[str, str, bytes]:
    """The path of a file, a sentence if it cannot be read, and the checksum of its bytes and label."""
    name = part.paths[n]
    path = listing.root / name
    try:
        content = path.read_bytes()
    except OSError as error:
        return name, f"{path} cannot be read: {error.strerror}", b""
    checksum = hashlib.sha256(content + str(part.labels[n]).encode()).digest()
    try:
        listing.pixels(part, [n])
    except RunError as error:
        return name, str(error), checksum
    return name, "", checksum


def remembered(listing: Listing, source: str, folder: Path) -> Verdict | None:
    """The verdict that `remember` has kept on these very files; None if there is none."""
    now = _of_files(listing)
    for kept in cache.folders(folder):
        if not cache.is_trusted(kept, folder):
            continue
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(files_.read_regular(kept / _name(source)))
            if content["fingerprint"] == now:
                return Verdict({str(k): str(v) for k, v in content["broken"].items()}, str(content["sha256"]))
    return None


def remember(verdict: Verdict, listing: Listing, source: str, folder: Path) -> None:
    """Keep a verdict in the first cache of a data folder that can be written."""
    content = {"fingerprint": _of_files(listing), "broken": verdict.broken, "sha256": verdict.sha256}
    for kept in cache.writable(folder):
        with suppress(OSError):
            files_.write_atomically(kept / _name(source), json.dumps(content).encode())
            return


def without_broken(listing: Listing, source: str, folder: Path) -> Listing:
    """A listing without the files that cannot be read, which are found by decoding all of them, once.

    Raises:
        RunError: no image of a class is left.
    """
    writable = cache.writable(folder)
    with cache.lock(writable[0]) if writable else nullcontext():
        found = remembered(listing, source, folder)
        if found is None:
            found = verdict(listing)
            remember(found, listing, source, folder)
    return replace(listing.without(found.broken), content_sha256=found.sha256)


def fingerprint(listing: Listing) -> str:
    """sha256 of `Listing.size`, and of names, labels, boxes, sizes and modification times of all files."""
    return hashlib.sha256(f"{listing.size} {_of_files(listing)}".encode()).hexdigest()


def _of_files(listing: Listing) -> str:
    """`fingerprint` without `Listing.size`, on which no verdict depends."""
    digest = hashlib.sha256()
    for part in (listing.train, listing.test):
        for path, label in zip(part.paths, part.labels.tolist(), strict=True):
            status = (listing.root / path).stat()
            digest.update(os.fsencode(f"{path} {label} {status.st_size} {status.st_mtime_ns}\n"))
        digest.update(b"" if part.boxes is None else part.boxes.tobytes())
    return digest.hexdigest()


def _name(source: str) -> str:
    return f"{source}-checked.json"
