"""Image files that are decoded when they are needed: in memory before a run, or batch by batch."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.data.readers import photographs, threads
from kdbench.errors import RunError
from kdbench.words import count

if TYPE_CHECKING:
    import numpy as np

    from kdbench.data.readers.arrays import Arrays


@dataclass(frozen=True, eq=False)
class Files:
    """Image files with their labels.

    Attributes:
        paths: relative to the root of the listing, with / between folders.
        labels: (N,) int64.
        boxes: (N, 4) left, top, right and bottom of the part to be cut out first, in pixels; None for whole images.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    boxes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.paths),) or self.labels.dtype != "int64":
            raise ValueError(f"labels must be ({len(self.paths)},) int64, not {self.labels.shape} {self.labels.dtype}")
        if self.boxes is not None and self.boxes.shape != (len(self.paths), 4):
            raise ValueError(f"boxes must be ({len(self.paths)}, 4), not {self.boxes.shape}")


@dataclass(frozen=True, eq=False)
class Listing:
    """The image files of a dataset, not decoded. Their order is that of training, so it is the reader's to fix.

    Attributes:
        root: folder that the paths start from.
        train, test: files of the training and test images.
        classes: their names; a label is an index into them.
        size: side in pixels of the square that each image becomes (`Reading.size`).
        notes: sentences for the user about how the files were listed.
        skipped: number of files left out because they cannot be read.
        content_sha256: checksum of the bytes of all files, those left out among them, where `skipped` was determined by
            reading them all.

    Raises:
        ValueError: no size, no files, or labels that do not fit the classes.
    """

    root: Path
    train: Files
    test: Files
    classes: tuple[str, ...]
    size: int
    notes: tuple[str, ...] = ()
    skipped: int = 0
    content_sha256: str | None = None

    channels = 3

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ValueError("the images of a listing need a size")
        for part in (self.train, self.test):
            if not part.paths:
                raise ValueError("a listing needs training and test images")
            if part.labels.min() < 0 or part.labels.max() >= len(self.classes):
                raise ValueError(f"labels must be 0..{len(self.classes) - 1} for {len(self.classes)} classes")

    @property
    def train_labels(self) -> np.ndarray:
        """(N,) int64."""
        return self.train.labels

    @property
    def test_labels(self) -> np.ndarray:
        """(M,) int64."""
        return self.test.labels

    @property
    def decoded_shape(self) -> tuple[int, int, int, int]:
        """(N, size, size, 3) of all images, those of training first."""
        return len(self.train.paths) + len(self.test.paths), self.size, self.size, self.channels

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all images when they are decoded."""
        return math.prod(self.decoded_shape)

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.size}".encode())
        for part in (self.train, self.test):
            for path, label in zip(part.paths, part.labels.tolist(), strict=True):
                digest.update(os.fsencode(f"{path} {label} {(self.root / path).stat().st_size}\n"))
            digest.update(b"" if part.boxes is None else part.boxes.tobytes())
        return digest.hexdigest()

    def digest(self) -> str:
        """sha256 of the files' names and sizes, their labels and boxes, and the size they are decoded to.

        The files themselves are not read, which would take hours for millions of them.
        """
        return self._digest

    def without(self, broken: Collection[str]) -> Listing:
        """This listing without some files, whose number is then in `skipped`.

        Raises:
            RunError: no image of a class is left.
        """
        import numpy as np

        parts = []
        for part in (self.train, self.test):
            kept = np.array([path not in broken for path in part.paths])
            lost = sorted(set(part.labels.tolist()) - set(part.labels[kept].tolist()))
            if lost:
                raise RunError(f"{self.root}: no image of the class '{self.classes[lost[0]]}' can be read")
            paths = tuple(path for path, keeps in zip(part.paths, kept, strict=True) if keeps)
            parts.append(Files(paths, part.labels[kept], None if part.boxes is None else part.boxes[kept]))
        if not broken:
            return self
        note = f"{count(len(broken), 'image')} of {self.root} cannot be read and left out: {min(broken)}" + ", …" * (
            len(broken) > 1
        )
        return replace(self, train=parts[0], test=parts[1], skipped=len(broken), notes=(*self.notes, note))

    def pixels(self, files: Files, which: Sequence[int]) -> np.ndarray:
        """(B, size, size, 3) uint8 of the files at these places.

        Raises:
            RunError: a file cannot be read.
        """
        import numpy as np

        boxes = files.boxes
        return np.stack(
            [
                photographs.square(
                    self.root / files.paths[n], self.size, None if boxes is None else tuple(boxes[n].tolist())
                )
                for n in which
            ]
        )

    def batches(self, files: Files) -> Iterator[np.ndarray]:
        """All images of `files` in order, (B, size, size, 3) uint8, decoded by threads a little ahead.

        Raises:
            RunError: a file cannot be read.
        """
        return threads.of_chunks(lambda which: self.pixels(files, which), len(files.paths))

    def decoded(self) -> Arrays:
        """All images in memory, in the order of the listing; decoded once for all runs of this process.

        Raises:
            RunError: a file cannot be read.
        """
        return self._decoded

    @cached_property
    def _decoded(self) -> Arrays:
        import numpy as np

        from kdbench.data.readers.arrays import Arrays

        pixels = np.empty(self.decoded_shape, dtype=np.uint8)  # filled in place: twice the memory may not be there
        done = 0
        for part in (self.train, self.test):
            for chunk in self.batches(part):
                pixels[done : done + len(chunk)] = chunk
                done += len(chunk)
        count = len(self.train.paths)
        return Arrays(pixels[:count], self.train.labels, pixels[count:], self.test.labels, self.classes, self.notes)
