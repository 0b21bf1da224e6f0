"""Accuracy of one network on images that are noisy or corrupted: the same ones for every run, whatever its method or seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean

import torch
from torch import Tensor, nn

from kdbench.config.settings import Dataset, Measures
from kdbench.data.augment import normalise
from kdbench.data.images import Images
from kdbench.measures.corruptions import NAMES, SEVERITIES, corrupt, with_noise
from kdbench.measures.evaluation import Evaluation, Values
from kdbench.precision import full_precision
from kdbench.streams import Streams

MEASURES = {
    "robustness": (
        "of_evaluation",
        {
            "keys": {
                "measures.images": ("int", "images", "test images for each severity of each corruption"),
                "robustness.corruptions": ("float", "percent", "accuracy on corrupted images, mean over all corruptions"),
                "robustness.corruption.*": ("float", "percent", "accuracy under one corruption, mean over its severities"),
                "robustness.severity.*": ("float", "percent", "accuracy at one severity, 1 to 5, mean over the corruptions"),
                "robustness.noise.*": ("float", "percent", "accuracy under Gaussian noise of a standard deviation"),
            },
            "columns": {
                "corruptions": {
                    "key": "robustness.corruptions", "title": "Corruptions %",
                    "about": "accuracy on corrupted images, mean over all",
                },
                "corruption.*": {
                    "key": "robustness.corruption.*", "title": "{} %",
                    "about": "accuracy under one corruption, such as corruption.fog",
                },
                "severity.*": {
                    "key": "robustness.severity.*", "title": "Severity {} %",
                    "about": "accuracy over all corruptions of one severity, 1 to 5",
                },
                "noise.*": {
                    "key": "robustness.noise.*", "title": "Noise {} %",
                    "about": "accuracy under Gaussian noise, such as noise.0.1",
                },
            },
        },
    )
}  # fmt: skip

CHUNK = 250
"""Images that are corrupted together: what is drawn for them depends on it, so it belongs to `measures.VERSION`."""

PIXELS = 100 * 32 * 32
"""Pixels of a batch on a CPU, whose caches hold no more. The prediction for an image does not depend on it."""

_STREAMS = Streams(0).within("measures")


def of_evaluation(evaluation: Evaluation) -> Values:
    """`robustness.*` and `measures.images` of the deployed network."""
    return robustness(evaluation.network, evaluation.test, evaluation.dataset, evaluation.measures, evaluation.between)


@torch.no_grad()
def robustness(
    network: nn.Module,
    test: Images,
    dataset: Dataset,
    measures: Measures,
    between: Callable[[float], None] = lambda done: None,
) -> dict[str, float | int | None]:
    """The `robustness.*` entries of a result, in percent, and `measures.images`.

    Args:
        network: maps images to logits (B, K), in evaluation mode.
        between: called after each of the up to 75 + noise measurements with the share that is done; may raise.
    """
    order = balanced_order(test.labels)
    images = min(measures.images or len(test), len(test))
    cells = [(name, severity) for name in NAMES for severity in SEVERITIES] if measures.corruptions else []
    result: dict[str, float | int | None] = {"measures.images": images}
    total = len(cells) + len(measures.noise)
    for number, sigma in enumerate(measures.noise, start=1):
        places = window(order, min(5 * images, len(test)), 0)
        noisy = _chunks(test, places, partial(with_noise, sigma=sigma), f"noise {sigma:g}")
        result[f"robustness.noise.{sigma:g}"] = _accuracy(network, noisy, dataset)
        between(number / total)
    accuracies: dict[tuple[str, int], float] = {}
    for number, (name, severity) in enumerate(cells, start=1 + len(measures.noise)):
        # Other images for each severity of a corruption, and each corruption of a severity: their means are of many more.
        places = window(order, images, NAMES.index(name) + severity)
        corrupted = _chunks(test, places, partial(corrupt, name=name, severity=severity), f"{name} {severity}")
        accuracies[name, severity] = _accuracy(network, corrupted, dataset)
        between(number / total)
    result["robustness.corruptions"] = round(fmean(accuracies.values()), 6) if accuracies else None
    if accuracies:
        for name in NAMES:
            result[f"robustness.corruption.{name}"] = round(fmean(accuracies[name, s] for s in SEVERITIES), 6)
        for severity in SEVERITIES:
            result[f"robustness.severity.{severity}"] = round(fmean(accuracies[name, severity] for name in NAMES), 6)
    return result


def balanced_order(labels: Tensor) -> Tensor:
    """The places 0..N-1 in a fixed random order in which every run of places has all classes in nearly equal shares.

    Args:
        labels: (N,) on any device.

    Returns:
        (N,) int64 on the same device.
    """
    generator = _STREAMS("order")
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels.cpu()[shuffled].argsort(stable=True)]
    sorted_labels = labels.cpu()[by_class]
    counts = sorted_labels.bincount()
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[sorted_labels]
    share = (rank + 0.5) / counts[sorted_labels]
    # Among classes that are as far, none comes first more often than others.
    again = torch.randperm(len(labels), generator=generator)
    return by_class[again[share[again].argsort(stable=True)]].to(labels.device)


def window(order: Tensor, images: int, number: int) -> Tensor:
    """Entry `number` of `order` (N,) cut into windows of so many images; past its end it starts again at its beginning."""
    places = torch.arange(number * images, (number + 1) * images, device=order.device)
    return order[places % len(order)]


def _chunks(
    test: Images, places: Tensor, change: Callable[..., Tensor], stream: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Changed images (B, C, H, W) in 0..1 and their labels (B,)."""
    for number, chunk in enumerate(places.split(CHUNK)):
        images = test.take(chunk).permute(0, 3, 1, 2).contiguous().float().div_(255)
        yield change(images, generator=_STREAMS(stream, number)), test.labels[chunk]


def _accuracy(network: nn.Module, chunks: Iterator[tuple[Tensor, Tensor]], dataset: Dataset) -> float:
    hits, count = [], 0
    for images, labels in chunks:
        with full_precision(images.device):
            inputs = normalise(images.mul_(255).permute(0, 2, 3, 1).contiguous(), dataset)
            size = max(1, PIXELS // inputs[0, 0].numel()) if images.device.type == "cpu" else len(inputs)
            guesses = torch.cat([network(batch).argmax(dim=1) for batch in inputs.split(size)])
        hits.append((guesses == labels).sum())
        count += len(labels)
    return 100 * torch.stack(hits).sum().item() / count
