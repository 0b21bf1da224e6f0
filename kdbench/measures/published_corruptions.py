"""Accuracy on the corrupted CIFAR test images as their authors publish them (CIFAR-10-C, CIFAR-100-C).

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import nn

from kdbench.config import settings
from kdbench.data.augment import normalise
from kdbench.data.readers import superclasses
from kdbench.errors import RunError, UserError, reason
from kdbench.measures.evaluation import Evaluation, Values
from kdbench.precision import full_precision

MEASURES = {
    "published_corruptions": (
        "of_evaluation",
        {
            "keys": {
                "robustness.published": ("float", "percent", "accuracy on CIFAR-10-C or CIFAR-100-C, mean of 15 corruptions"),
                "robustness.published.*": ("float", "percent", "the same for one corruption, mean of its severities"),
            },
            "columns": {
                "published_corruptions": {
                    "key": "robustness.published", "title": "CIFAR-C %",
                    "about": "accuracy on the published corrupted images",
                },
                "published_corruption.*": {
                    "key": "robustness.published.*", "title": "CIFAR-C {} %",
                    "about": "the same for one corruption, such as published_corruption.fog",
                },
            },
        },
    )
}  # fmt: skip

FOLDERS = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}
"""Folders by source of the images."""

NAMES = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "frost",
    "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""The corruptions of the benchmark; the files of four others are there to tune on."""

SEVERITIES = 5
BATCH = 500


def check(source: str, folder: Path | None) -> Path:
    """The folder of the files, all of which are there.

    Raises:
        UserError: there are none for these images, or one is missing.
    """
    asked = "Measures.published_corruptions=True"
    if source not in FOLDERS:
        raise UserError(f"{asked} is for {' and '.join(FOLDERS)}, not for '{source}'")
    place = (folder or Path()) / FOLDERS[source]
    for name in (*NAMES, "labels"):
        if not (place / f"{name}.npy").is_file():
            raise UserError(f"{asked} needs {place / name}.npy, which is published at https://zenodo.org (CIFAR-C)")
    return place


def of_evaluation(evaluation: Evaluation) -> Values:
    """`robustness.published` and `robustness.published.*` of the deployed network; nothing unless it is asked for."""
    if not evaluation.measures.published_corruptions:
        return {}
    place = check(evaluation.dataset.source, evaluation.folder)
    labels = torch.from_numpy(_array(place / "labels.npy").astype(np.int64))
    if evaluation.dataset.labels == "coarse":
        labels = torch.tensor(superclasses.coarse_labels(superclasses.FINE))[labels]
    values: dict[str, float] = {}
    for number, name in enumerate(NAMES, start=1):
        images = _array(place / f"{name}.npy")
        if images.shape != (len(labels), 32, 32, 3) or images.dtype != np.uint8 or len(labels) % SEVERITIES:
            raise RunError(
                f"{place / name}.npy must hold {len(labels):,} images of 32x32, not {images.shape} {images.dtype}"
            )
        device = evaluation.test.labels.device
        values[name] = _accuracy(evaluation.network, images, labels, evaluation.dataset, device)
        evaluation.between(number / len(NAMES))
    each = {f"robustness.published.{name}": round(value, 6) for name, value in values.items()}
    return {"robustness.published": round(fmean(values.values()), 6), **each}


def _array(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from error
    return array


@torch.no_grad()
def _accuracy(
    network: nn.Module, images: np.ndarray, labels: torch.Tensor, dataset: settings.Dataset, device: torch.device
) -> float:
    hits = 0
    with full_precision(device):
        for first in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.array(images[first : first + BATCH])).to(device)
            guesses = network(normalise(batch, dataset)).argmax(dim=1).cpu()
            hits += int((guesses == labels[first : first + BATCH]).sum())
    return 100 * hits / len(images)
