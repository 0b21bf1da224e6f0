"""Validation curves from `epochs.csv`, thinned and in whole hundredths of a percent, so that thousands fit into a page."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from kdbench.store import EPOCHS

MOST = 100
"""Points a run."""


class Curves:
    """Reads the curves of runs.

    Attributes:
        epochs: the lists of epochs that curves have, each once; most runs of a table share theirs.
    """

    def __init__(self, runs: Path):
        self.epochs: list[list[int]] = []
        self._runs = runs
        self._places: dict[tuple[int, ...], int] = {}

    def of(self, run: str) -> list[int] | None:
        """The place of its epochs in `epochs`, then an accuracy for each; None if there is no file of curves."""
        points = _points(self._runs / run / EPOCHS)
        if not points:
            return None
        epochs = tuple(epoch for epoch, _ in points)
        if epochs not in self._places:
            self._places[epochs] = len(self.epochs)
            self.epochs.append(list(epochs))
        return [self._places[epochs], *(round(100 * accuracy) for _, accuracy in points)]


def _points(path: Path) -> list[tuple[int, float]]:
    """Epochs and accuracies; the first and the last are always among them."""
    found = []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row.get("accuracy.val"):
                    point = int(row["epoch"]), float(row["accuracy.val"])
                    if math.isfinite(point[1]):
                        found.append(point)
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return []
    if len(found) <= MOST:
        return found
    return [found[i * (len(found) - 1) // (MOST - 1)] for i in range(MOST)]
