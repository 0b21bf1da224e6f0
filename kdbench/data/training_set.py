"""The training set of a run: what is left of the training images after the validation split, with the labels it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdbench.config.settings import Split
from kdbench.config.switches import AS_LABELLED, Labels
from kdbench.data.readers.superclasses import SUPERCLASSES
from kdbench.data.split import validation_split
from kdbench.errors import RunError

CONFUSED = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
"""The pairs of Patrini et al., 2017, on CIFAR-10: images of the first class get the label of the second."""


class TrainingSet(NamedTuple):
    """Places among the training images of a dataset.

    Attributes:
        train, validation: (N,) and (M,) int64, each sorted.
        labels, validation_labels: (N,) and (M,) int64, the labels that they are given.
    """

    train: np.ndarray
    validation: np.ndarray
    labels: np.ndarray
    validation_labels: np.ndarray


def training_set(
    labels: np.ndarray, classes: Sequence[str], split: Split, changes: Labels = AS_LABELLED
) -> TrainingSet:
    """Cut the validation split, then thin the rest out and give wrong labels, as `changes` asks for.

    The validation split is cut first and keeps all its images, so that it measures the same everywhere. Its labels are as noisy
    as those of training: a clean split would choose better than is possible where labels are wrong.

    Args:
        labels: (N,) of all training images of the dataset.
        classes: names of the classes.

    Raises:
        RunError: a class has fewer images than are asked for, or the largest ones are too small for the imbalance.
    """
    train, validation = validation_split(labels, split.validation, split.seed)
    own, held_out = labels[train], labels[validation]
    if changes.per_class or changes.imbalance != 1:
        kept = _thinned(own, classes, changes)
        train, own = train[kept], own[kept]
    if changes.noise:
        own, held_out = _noisy(own, classes, changes, 0), _noisy(held_out, classes, changes, 1)
    return TrainingSet(train, validation, own, held_out)


def _thinned(labels: np.ndarray, classes: Sequence[str], changes: Labels) -> np.ndarray:
    """Places of the images that are kept, sorted."""
    counts = np.bincount(labels, minlength=len(classes))
    last = max(len(classes) - 1, 1)
    kept: list[np.ndarray] = []
    for label, name in enumerate(classes):
        wanted = changes.per_class or int(counts.max() * changes.imbalance ** (-label / last))
        if not wanted:
            raise RunError(f"Labels.imbalance={changes.imbalance:g} leaves no training image of the class '{name}'")
        if counts[label] < wanted:
            key = (
                f"Labels.per_class={wanted}"
                if changes.per_class
                else f"Labels.imbalance={changes.imbalance:g} ({wanted})"
            )
            raise RunError(f"{key} asks for more than the {counts[label]} training images of the class '{name}'")
        kept.append(_drawn(np.flatnonzero(labels == label), wanted, changes.seed, 2 * label))
    return np.sort(np.concatenate(kept))


def _noisy(labels: np.ndarray, classes: Sequence[str], changes: Labels, part: int) -> np.ndarray:
    count = len(classes)
    if count < 2:
        raise RunError("Labels.noise needs at least two classes")
    noisy = labels.copy()
    next_one = _confused(classes)
    for label in range(count):
        places = np.flatnonzero(labels == label)
        wrong = _drawn(places, round(changes.noise * len(places)), changes.seed, 2 * label + 1, part)
        if changes.noise_kind == "asymmetric":
            noisy[wrong] = next_one[label]
        else:
            other = np.random.PCG64([changes.seed, 2 * count + label, part]).random_raw(len(wrong)) % np.uint64(
                count - 1
            )
            noisy[wrong] = (label + 1 + other.astype(np.int64)) % count
    return noisy


def _confused(classes: Sequence[str]) -> np.ndarray:
    """For each class the one that its images are taken for."""
    label_of = {name: label for label, name in enumerate(classes)}
    if set(CONFUSED) | set(CONFUSED.values()) <= set(classes):
        return np.array([label_of[CONFUSED.get(name, name)] for name in classes])
    following = {name: names[(n + 1) % len(names)] for names in SUPERCLASSES.values() for n, name in enumerate(names)}
    if set(classes) <= set(following) and set(following) <= set(classes):
        return np.array([label_of[following[name]] for name in classes])
    return np.array([(label + 1) % len(classes) for label in range(len(classes))])


def _drawn(places: np.ndarray, count: int, seed: int, *stream: int) -> np.ndarray:
    """So many of some places. numpy promises the raw numbers of a bit generator, and not what `choice` makes of them."""
    keys = np.random.PCG64([seed, *stream]).random_raw(len(places))
    return places[np.argsort(keys, kind="stable")[:count]]
