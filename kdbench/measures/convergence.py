"""Measures of how fast a run learned, from the validation curve in its `epochs.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kdbench.files import read_regular

if TYPE_CHECKING:
    from kdbench.measures.evaluation import Evaluation, Values

MEASURES = {
    "convergence": (
        "of_evaluation",
        {
            "keys": {
                "convergence.auc": ("float", "percent", "mean validation accuracy over the images of the budget"),
                "convergence.highest": ("float", "percent", "highest validation accuracy of an epoch's end"),
                "convergence.images.*": ("int", "images", "images until a validation accuracy in percent was reached"),
                "convergence.seconds.*": ("float", "seconds", "training time until a validation accuracy was reached"),
            },
            "columns": {
                "auc": {
                    "key": "convergence.auc", "title": "AUC %",
                    "about": "mean validation accuracy over the images of the budget",
                },
                "images_to.*": {
                    "key": "convergence.images.*", "title": "Images to {} %",
                    "about": "images until a validation accuracy, such as images_to.60, of the seeds that reach it",
                    "digits": None, "better": "lower", "spread": False,
                },
                "seconds_to.*": {
                    "key": "convergence.seconds.*", "title": "Seconds to {} %",
                    "about": "training time until a validation accuracy, of the seeds that reach it",
                    "digits": 1, "better": "lower", "spread": False,
                },
            },
        },
    )
}  # fmt: skip


MOST_BYTES = 64 << 20
"""Bytes of an epochs.csv that are read at most: a hundred thousand epochs with many terms."""


class Point(NamedTuple):
    """The end of an epoch.

    Attributes:
        images: through the student so far.
        seconds: seconds of training so far, without evaluation.
        accuracy: on the validation split, in percent.
    """

    images: int
    seconds: float
    accuracy: float


def read(epochs_csv: Path) -> list[Point]:
    """The validation curve in the file of a run; empty without a validation split.

    Raises:
        OSError: see `kdbench.files.read_regular`.
        ValueError, KeyError, TypeError, csv.Error: it holds something else.
    """
    return points(read_regular(epochs_csv, MOST_BYTES).decode())


def points(epochs_csv: str) -> list[Point]:
    """The validation curve in the content of `epochs.csv`; empty without a validation split.

    Raises:
        ValueError, KeyError, TypeError, csv.Error: it is something else.
    """
    return [
        Point(int(row["images"]), float(row["seconds"]), float(row["accuracy.val"]))
        for row in csv.DictReader(io.StringIO(epochs_csv, newline=""))
        if row["accuracy.val"]
    ]


def of_evaluation(evaluation: Evaluation) -> Values:
    """`convergence.*` of a run; before training its accuracy is that of chance, 100 / K percent."""
    return convergence(evaluation.curve, 100 / evaluation.classes, evaluation.measures.accuracies)


def convergence(curve: Sequence[Point], chance: float, accuracies: Sequence[float]) -> dict[str, float | int | None]:
    """The `convergence.*` entries of a result.

    Args:
        curve: one point an epoch, in order.
        chance: accuracy in percent before training.
        accuracies: targets in percent; for each, images and seconds until the first epoch's end at which it was reached. They are
            not interpolated: between two epochs nothing was measured.
    """
    result: dict[str, float | int | None] = {
        "convergence.auc": area(curve, chance),
        # Which tells apart, where the cells of a row are empty, what was never reached from what was not asked for.
        "convergence.highest": max((point.accuracy for point in curve), default=None),
    }
    for wanted in accuracies:
        reached = next((point for point in curve if point.accuracy >= wanted), None)
        result[f"convergence.images.{wanted:g}"] = reached.images if reached else None
        result[f"convergence.seconds.{wanted:g}"] = reached.seconds if reached else None
    return result


def area(curve: Sequence[Point], chance: float) -> float | None:
    """Mean accuracy over the budget: the trapezoid rule over images seen, from `chance` at 0 images; None without a curve."""
    if not curve:
        return None
    points = [Point(0, 0.0, chance), *curve]
    total = sum((b.images - a.images) * (a.accuracy + b.accuracy) / 2 for a, b in pairwise(points))
    return round(total / points[-1].images, 6)
