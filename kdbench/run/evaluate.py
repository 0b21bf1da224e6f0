"""Logits and accuracies of networks, without gradient, in evaluation mode and full precision; and the one final evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone
from kdbench.config.settings import Dataset, Settings
from kdbench.data.augment import normalise
from kdbench.data.images import Images
from kdbench.data.task import Task
from kdbench.measures import VERSION, flops
from kdbench.measures.convergence import Point
from kdbench.measures.evaluation import OWN, Evaluation, measure
from kdbench.method.base import Method
from kdbench.precision import full_precision
from kdbench.run.load import LogitsOnly
from kdbench.run.teacher_outputs import OutputsOnTest

if TYPE_CHECKING:
    from kdbench.run.teacher import LoadedTeacher

BATCH = 500


def accuracies(logits_of: Callable[[Tensor], dict[str, Tensor]], images: Images, dataset: Dataset) -> dict[str, float]:
    """Top-1 accuracy in percent of each named classifier; with several, also of their averaged softmax as "ensemble".

    Args:
        logits_of: (B, C, H, W) images to logits (B, K) by name.
    """
    return accuracies_of(all_logits(logits_of, images, dataset), images)


def accuracies_of(logits: Mapping[str, Tensor], images: Images) -> dict[str, float]:
    """Top-1 accuracies in percent from logits (N, K) by name, and that of their ensemble."""
    found = {name: _top1(z, images) for name, z in logits.items()}
    if len(logits) > 1:
        together = torch.stack([z.float().softmax(dim=1) for z in logits.values()]).mean(dim=0)
        found["ensemble"] = _top1(together, images)
    return found


@torch.no_grad()
def all_logits(logits_of: Callable[[Tensor], dict[str, Tensor]], images: Images, dataset: Dataset) -> dict[str, Tensor]:
    """Collect what `logits_of` returns for all images, (N, K) by name; it is given normalised batches."""
    found: dict[str, list[Tensor]] = {}
    with full_precision(images.labels.device):
        for batch in images.batches(BATCH):
            for name, z in logits_of(normalise(batch, dataset)).items():
                found.setdefault(name, []).append(z)
    return {name: torch.cat(parts) for name, parts in found.items()}


def accuracy(network: nn.Module, images: Images, dataset: Dataset) -> float:
    """Top-1 accuracy in percent of one network."""
    was_training = network.training
    network.eval()
    result = accuracies(lambda x: {OWN: network(x)}, images, dataset)[OWN]
    network.train(was_training)
    return result


def _top1(logits: Tensor, images: Images) -> float:
    return 100 * (logits.argmax(dim=1) == images.labels).sum().item() / len(images)


_POOLED = "pooled features"
"""A key that is not the name of an exit."""


def _outputs(network: nn.Module, x: Tensor, pooled: bool) -> dict[str, Tensor]:
    """Logits (B, K) of a network, and its pooled features (B, D) where they are asked for and it has some."""
    if not pooled or not _has_features(network):
        return {OWN: network(x)}
    out = network(x, features=True)
    return {OWN: out.logits, _POOLED: out.pooled}


def _has_features(network: nn.Module) -> bool:
    return isinstance(network, Backbone) and not isinstance(network, LogitsOnly)


def _of_teacher(
    teacher: LoadedTeacher, pooled: bool, test: Images, given: Settings, kept: OutputsOnTest | None
) -> dict[str, Tensor]:
    """The teacher's outputs on all test images, read where an earlier run has kept them."""
    network, prepared = teacher.network, teacher.seen_by_methods().own_normalisation

    def compute() -> dict[str, Tensor]:
        return all_logits(lambda x: _outputs(network, prepared(x), pooled), test, given.dataset)

    # Images that are not in memory are not kept: their checksum is of names and sizes, and not of pixels.
    if kept is None or not test.in_memory:
        return compute()
    names = [OWN, _POOLED] if pooled and _has_features(network) else [OWN]
    return kept.get(network, [teacher.scale, teacher.shift], test, given.dataset, names, BATCH, compute)


def _flops_through(method: Method, test: Images) -> dict[str, int]:
    """FLOPs of an image through all classifiers up to each one."""
    image = torch.zeros(1, *method.info.image_shape, device=test.labels.device)
    return flops.through(lambda: {**method.exits(image), OWN: method.deployed()(image)}, OWN)


def final(
    method: Method,
    best: dict[str, Tensor] | None,
    teacher: LoadedTeacher | None,
    task: Task,
    given: Settings,
    curve: Sequence[Point],
    between: Callable[[float], None] = lambda done: None,
    kept: OutputsOnTest | None = None,
) -> dict[str, float | int | None]:
    """All that is reported of the test set: the one place where it is read, once, when training is over.

    Args:
        best: the deployed network's weights at the best epoch on the validation split, if there is one.
        teacher: the first teacher, if there is one.
        curve: the validation curve of the run.
        between: called now and then with the share that a slow measure has done; may raise.
        kept: the outputs of teachers that earlier runs have kept; None: they are computed.

    Returns:
        `accuracy.last`, `accuracy.best_val`, `exits.*` and `teacher.accuracy` in percent, `measures.version`, and what
        the measures declare (`kdbench.config.result_keys`); None where there is nothing.
    """
    task.test.training_is_over()
    test, dataset = task.test.read(), given.dataset
    method.eval()
    deployed = method.deployed()

    def classifiers(x: Tensor) -> dict[str, Tensor]:
        return {**method.exits(x), **_outputs(deployed, x, teacher is not None or method.second_head is not None)}

    logits = all_logits(classifiers, test, dataset)
    features = logits.pop(_POOLED, None)
    by_classifier = accuracies_of(logits, test)
    result: dict[str, float | int | None] = {
        "accuracy.last": by_classifier.pop(OWN),
        "accuracy.best_val": None,
        "teacher.accuracy": None,
        "measures.version": VERSION,
    }
    result |= {f"exits.{name}": value for name, value in by_classifier.items()}
    if method.second_head is not None and features is not None:
        guesses = method.second_head(features).argmax(dim=1)
        result["accuracy.second_task"] = (
            100 * (guesses == method.second_head.targets(test.labels)).float().mean().item()
        )
    taught = teacher_features = None
    if teacher is not None:
        outputs = _of_teacher(teacher, features is not None, test, given, kept)
        taught, teacher_features = outputs[OWN], outputs.get(_POOLED)
        result["teacher.accuracy"] = _top1(taught, test)
    by_exit = [name for name in logits if name != OWN]
    result |= measure(
        Evaluation(
            deployed, logits, taught, test, curve, task.classes, dataset, given.measures, between, task.folder,
            features=features, teacher_features=teacher_features, flops_through=_flops_through(method, test) if by_exit else {},
        )
    )  # fmt: skip
    if best is not None:
        last = {name: value.clone() for name, value in deployed.state_dict().items()}
        deployed.load_state_dict(best)
        result["accuracy.best_val"] = accuracy(deployed, test, dataset)
        deployed.load_state_dict(last)
    return result
