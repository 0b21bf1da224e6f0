"""The images of one run on its device: training and validation at hand, the test set sealed until training is over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kdbench.config.settings import Dataset, Machine, Split
from kdbench.config.switches import AS_LABELLED, NO_CROP, Labels, ResizedCrop
from kdbench.data import memory
from kdbench.data.cached import Cached
from kdbench.data.images import Images
from kdbench.data.readers import decoded_file, inspection, registry
from kdbench.data.readers.arrays import Arrays
from kdbench.data.readers.listing import Files, Listing
from kdbench.data.streamed import Streamed, workers
from kdbench.data.training_set import TrainingSet, training_set
from kdbench.errors import RunError


class SealedTest:
    """The test images, which can be read once, and only after training has been declared over.

    Args:
        may_choose: whether the test set may select the epoch (`switches.Selection`).
    """

    def __init__(self, images: Images, may_choose: bool = False):
        self._images: Images | None = images
        self._training_over = False
        self._may_choose = may_choose

    def choose(self) -> Images:
        """The test images during training, for runs that are stamped as selected on them.

        Raises:
            RunError: `Selection.on_test` is not set.
        """
        if not self._may_choose or self._images is None:
            raise RunError("model selection on the test set needs Selection.on_test=True")
        return self._images

    def training_is_over(self) -> None:
        """Allow the test images to be read, because nothing can be selected any more."""
        self._training_over = True

    def read(self) -> Images:
        """The test images.

        Raises:
            RunError: training is not over, or they were read before.
        """
        if not self._training_over:
            raise RunError("the test set was read before training finished")
        if self._images is None:
            raise RunError("the test set was read twice; only the final evaluation reads it, once")
        images, self._images = self._images, None
        return images


@dataclass(frozen=True)
class Task:
    """A dataset, split and on the device.

    Attributes:
        train, validation: `validation` is empty where the split has none.
        test: sealed.
        classes: number of classes.
        digest: sha256 of all images and labels; of a listing, see `Listing.digest`.
        skipped: images left out because they cannot be read; None where none may be (`Dataset.skip_broken`).
        content: sha256 of the bytes of all files, if `kdbench data check` has computed it.
        folder: the user's data folder, if there is one.
        class_names: names of the classes, in the order of their labels.
    """

    train: Images
    validation: Images
    test: SealedTest
    classes: int
    digest: str
    skipped: int | None = None
    content: str | None = None
    folder: Path | None = None
    class_names: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        height, width, channels = self.train.shape
        return channels, height, width


def load(
    dataset: Dataset,
    split: Split,
    folder: Path | None,
    device: torch.device,
    test_may_choose: bool = False,
    crop: ResizedCrop = NO_CROP,
    machine: Machine | None = None,
    changes: Labels = AS_LABELLED,
) -> Task:
    """Read a dataset and cut its validation split.

    Args:
        changes: wrong labels, few images and long tails of the training set.
        crop: resized crops, for which image files are streamed.
        machine: where image files are decoded; in memory by default.

    Raises:
        UserError, RunError: the images are not there, or are not what they should be (`registry.read`).
    """
    content = registry.read_once(dataset.source, folder, dataset.reading)
    registry.check_channels(dataset.source, content, dataset.mean)
    registry.check_crop(dataset.source, content, crop.test_share)
    chosen = training_set(content.train_labels, content.classes, split, changes)
    if isinstance(content, Listing):
        parts = _of_listing(content, chosen, folder, device, crop, machine)
    else:
        parts = _in_memory(content, chosen, device)
    train, validation, test = parts
    train.labels = torch.from_numpy(chosen.labels).to(device)
    validation.labels = torch.from_numpy(chosen.validation_labels).to(device)
    return Task(
        train,
        validation,
        SealedTest(test, test_may_choose),
        classes=len(content.classes),
        digest=content.digest(),
        skipped=content.skipped if isinstance(content, Listing) and dataset.skip_broken else None,
        content=_checksum(content, dataset.source, folder),
        folder=folder,
        class_names=content.classes,
    )


Parts = tuple[Images, Images, Images]
"""Training, validation and test images."""


def _checksum(content: Arrays | Listing, source: str, folder: Path | None) -> str | None:
    """The checksum of all files that `kdbench data check`, or leaving broken ones out, has computed."""
    if isinstance(content, Arrays) or content.content_sha256 or folder is None:
        return content.content_sha256 if isinstance(content, Listing) else None
    verdict = inspection.remembered(content, source, folder)
    return verdict.sha256 if verdict else None


def _in_memory(arrays: Arrays, chosen: TrainingSet, device: torch.device) -> Parts:
    def on_device(images: np.ndarray, labels: np.ndarray) -> Images:
        return Images(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))

    train, validation = (
        on_device(arrays.train_images[which], arrays.train_labels[which]) for which in (chosen.train, chosen.validation)
    )
    return train, validation, on_device(arrays.test_images, arrays.test_labels)


def _of_listing(
    listing: Listing,
    chosen: TrainingSet,
    folder: Path | None,
    device: torch.device,
    crop: ResizedCrop,
    machine: Machine | None,
) -> Parts:
    images, share = (machine.images, machine.memory) if machine else ("memory", 1.0)
    where = memory.placement(listing, images, share, crop.is_on).where
    every = np.arange(len(listing.test.paths))
    if where == "stream":
        processes = workers(machine.workers if machine else 0)

        def part(files: Files, which: np.ndarray) -> Images:
            return Streamed(listing, files, which, device, processes, crop)

        return part(listing.train, chosen.train), part(listing.train, chosen.validation), part(listing.test, every)
    if where == "cache" and folder:
        pixels, tested = decoded_file.pixels(listing, folder)
        train, validation = (
            Cached(pixels, listing.train_labels, which, device) for which in (chosen.train, chosen.validation)
        )
        return train, validation, Cached(tested, listing.test_labels, every, device)
    return _in_memory(listing.decoded(), chosen, device)
