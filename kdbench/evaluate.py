"""Accuracy of networks on images, without gradient, in evaluation mode and full precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdbench.data.augment import normalise
from kdbench.data.task import Images, Task
from kdbench.method import Method
from kdbench.precision import full_precision
from kdbench.settings import Dataset

BATCH = 500
OWN = "own"
"""The key of a network's own classifier among its exits."""


@torch.no_grad()
def accuracies(logits_of: Callable[[Tensor], dict[str, Tensor]], images: Images, dataset: Dataset) -> dict[str, float]:
    """Top-1 accuracy in percent of each named classifier; with several, also of their averaged softmax as "ensemble".

    Args:
        logits_of: (B, C, H, W) images to logits (B, K) by name.
    """
    device = images.labels.device
    correct: dict[str, Tensor] = {}
    with full_precision(device):
        for first in range(0, len(images), BATCH):
            batch = normalise(images.images[first : first + BATCH], dataset)
            labels = images.labels[first : first + BATCH]
            logits = logits_of(batch)
            if len(logits) > 1:
                together = torch.stack([z.float().softmax(dim=1) for z in logits.values()]).mean(dim=0)
                logits = {**logits, "ensemble": together}
            for name, z in logits.items():
                hits = (z.argmax(dim=1) == labels).sum()
                correct[name] = correct[name] + hits if name in correct else hits
    return {name: 100 * hits.item() / len(images) for name, hits in correct.items()}


def accuracy(network: nn.Module, images: Images, dataset: Dataset) -> float:
    """Top-1 accuracy in percent of one network."""
    was_training = network.training
    network.eval()
    result = accuracies(lambda x: {OWN: network(x)}, images, dataset)[OWN]
    network.train(was_training)
    return result


def final(
    method: Method, best: dict[str, Tensor] | None, teacher: nn.Module | None, task: Task, dataset: Dataset
) -> dict[str, float | None]:
    """All that is said of the test set: the one place where it is read, once, when training is over.

    Args:
        best: the deployed network's weights at the best epoch on the validation split, if there is one.

    Returns:
        `accuracy.last`, `accuracy.best_val`, `exits.*` and `teacher.accuracy`, in percent; None where there is nothing.
    """
    task.test.training_is_over()
    test = task.test.read()
    method.eval()
    deployed = method.deployed()

    def exits(x: Tensor) -> dict[str, Tensor]:
        return {**method.exits(x), OWN: deployed(x)}

    found = accuracies(exits, test, dataset)
    result: dict[str, float | None] = {"accuracy.last": found.pop(OWN), "accuracy.best_val": None}
    result |= {f"exits.{name}": value for name, value in found.items()}
    result["teacher.accuracy"] = accuracy(teacher, test, dataset) if teacher is not None else None
    if best is not None:
        last = {name: value.clone() for name, value in deployed.state_dict().items()}
        deployed.load_state_dict(best)
        result["accuracy.best_val"] = accuracy(deployed, test, dataset)
        deployed.load_state_dict(last)
    return result
