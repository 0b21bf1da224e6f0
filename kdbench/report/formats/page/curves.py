"""Validation curves of runs, thinned and in whole hundredths of a percent, so that thousands fit into a page."""

from __future__ import annotations

from pathlib import Path

from kdbench.report.plots.series import curve
from kdbench.store.folder import EPOCHS

MOST = 100
"""Points a run."""


class Curves:
    """Reads the curves of runs.

    Attributes:
        images: the lists of images seen that curves have, each once; most runs of a table share theirs.
    """

    def __init__(self, runs: Path):
        self.images: list[list[int]] = []
        self._runs = runs
        self._places: dict[tuple[int, ...], int] = {}

    def of(self, run: str) -> list[int] | None:
        """The place of its images in `images`, then an accuracy for each; None if there is no curve."""
        points = curve(self._runs / run / EPOCHS)
        if len(points) > MOST:  # the first and the last stay
            points = [points[i * (len(points) - 1) // (MOST - 1)] for i in range(MOST)]
        if not points:
            return None
        images = tuple(point.images for point in points)
        if images not in self._places:
            self._places[images] = len(self.images)
            self.images.append(list(images))
        return [self._places[images], *(round(100 * point.accuracy) for point in points)]
