"""How the frozen features of a finished run do on another dataset: a linear probe and the nearest neighbours.

CRD (Tian et al., ICLR 2020, section 4.1) froze networks trained on CIFAR-100 and trained linear classifiers for STL-10 and
Tiny-ImageNet on their features, with images brought to the size of CIFAR. So it is done here, but for how the classifier is
fitted (kdbench/measures/probe.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.backbones.backbone import Backbone
from kdbench.config import resolve
from kdbench.config.settings import Dataset, Split
from kdbench.data import task as tasks
from kdbench.data.images import Images
from kdbench.data.readers import registry
from kdbench.errors import RunError, UserError
from kdbench.measures import probe
from kdbench.precision import full_precision
from kdbench.run import allocator, arithmetic, checkpoint, load, prepare
from kdbench.run.load import LogitsOnly
from kdbench.store.folder import CHECKPOINT, RunFolder

VALIDATION = Split(validation=0.2, seed=0)
"""The part of the training images that chooses λ; the same for all runs."""

PIXELS = 500 * 32 * 32
"""Pixels of a batch."""

_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue. ITU-R BT.601."""


class Extractor(NamedTuple):
    """The network of a finished run, and what its images look like.

    Attributes:
        weights: checksum of what was loaded.
        image_shape: (channels, height, width) that it was trained on.
        mean, std: (C, 1, 1) each, for pixel values in 0..1.
    """

    network: Backbone
    weights: str
    image_shape: tuple[int, int, int]
    mean: Tensor
    std: Tensor

    @torch.no_grad()
    def __call__(self, images: Images) -> Tensor:
        """The pooled features (N, D) of images, brought to the size and channels that the network was trained on."""
        _, height, width = self.image_shape
        features = []
        with full_precision(images.labels.device):
            for batch in images.batches(max(1, PIXELS // (height * width))):
                pixels = fitted(batch.permute(0, 3, 1, 2).float() / 255, self.image_shape)
                features.append(self.network((pixels - self.mean) / self.std, features=True).pooled)
        return torch.cat(features)


def fitted(images: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Images (B, c, h, w) in 0..1 as (B, C, H, W): grey from colours or three times grey, then bilinear with antialiasing.

    Raises:
        RunError: a number of channels that is neither 1 nor 3 and differs.
    """
    channels, height, width = image_shape
    if images.shape[1] != channels:
        if {images.shape[1], channels} != {1, 3}:
            raise RunError(f"its network takes {channels} channels, and the images have {images.shape[1]}")
        if channels == 3:
            images = images.expand(-1, 3, -1, -1)
        else:
            images = (images * images.new_tensor(_GREY).reshape(3, 1, 1)).sum(dim=1, keepdim=True)
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def extractor(folder: RunFolder, device: torch.device) -> Extractor:
    """Load the deployed network of a finished run.

    Raises:
        RunError: it cannot be loaded, is not what the result says, or has no pooled features.
    """
    run = folder.path.name
    content = checkpoint.load(folder / CHECKPOINT)
    if "method" not in content:
        raise RunError(f"the checkpoint of {run} does not record the size of its images; an earlier kdbench wrote it")
    network = load.deployed(folder.path)
    if not isinstance(network, Backbone) or isinstance(network, LogitsOnly):
        raise RunError(f"the method of {run} deploys a network that is not a backbone, which has no pooled features")
    weights = checkpoint.weights_sha256(network.state_dict())
    if weights != folder.typed_result().get("weights.sha256"):
        raise RunError(f"the weights of {run} do not match the recorded checksum (sha256)")
    mean, std = (torch.tensor(each).reshape(-1, 1, 1).to(device) for each in load.normalisation(folder.path))
    channels, height, width = content["method"]["image_shape"]
    return Extractor(network.to(device), weights, (channels, height, width), mean, std)


def dataset(name: str, folder: Path | None) -> Dataset:
    """The settings of a dataset by its gin file, with its images read once, so that what is wrong with them shows first.

    Raises:
        UserError: the dataset does not exist; it needs a folder and there is none; the images are not what they should be.
    """
    settings = resolve.dataset(name)
    try:
        content = registry.read_once(settings.source, folder, settings.reading)
        registry.check_channels(settings.source, content, settings.mean)
    except RunError as error:
        raise UserError(str(error)) from error
    return settings


def device(name: str) -> torch.device:
    """The device of this name; "auto": a GPU if there is one.

    Raises:
        UserError: this machine does not have it.
    """
    try:
        return prepare.usable(name if name != "auto" else prepare.usual_device())
    except RunError as error:
        raise UserError(f"the device {error}; pass --device cpu") from None


@arithmetic.kept()
def measure(network: Extractor, target: Dataset, data: Path | None, device: torch.device) -> dict[str, Any]:
    """The accuracy of a linear probe and of the nearest neighbours on a dataset, in percent, and facts about them.

    λ is chosen on a fifth of the training images, and the probe is then fitted to all of them. The test images are read
    once, when nothing is left to be chosen.

    Args:
        data: the folder of the datasets.

    Raises:
        UserError, RunError: the images are not there or not what they should be.
    """
    allocator.keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False
    task = tasks.load(target, VALIDATION, data, device)
    if not len(task.validation):
        raise RunError(f"'{target.source}' has too few training images to choose a penalty on a fifth of them")
    train, validation = network(task.train), network(task.validation)
    penalty, start = probe.choose_penalty(
        (train, task.train.labels), (validation, task.validation.labels), task.classes
    )
    features = torch.cat([train, validation])
    labels = torch.cat([task.train.labels, task.validation.labels])
    classifier = probe.fit_linear(features, labels, task.classes, penalty, start)
    task.test.training_is_over()
    test = task.test.read()
    test_features = network(test)
    guesses = {
        "linear": classifier(test_features).argmax(dim=1),
        "knn": probe.nearest_neighbours(features, labels, test_features, task.classes),
    }
    accuracies = {name: 100 * int((guess == test.labels).sum()) / len(test) for name, guess in guesses.items()}
    return {
        **accuracies,
        "penalty": penalty,
        "train_images": len(labels),
        "test_images": len(test),
        "image_shape": list(network.image_shape),
        "data.sha256": task.digest,
    }
