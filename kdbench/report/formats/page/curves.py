"""Validation curves of runs, thinned and in whole hundredths of a percent, so that thousands fit into a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdbench.measures.convergence import Point

MOST = 100
"""Points per run."""


class Curves:
    """Encodes the curves of runs.

    Args:
        read: gives the validation curve of a run by its id; empty without one.

    Attributes:
        images: the lists of images seen that curves have, each once; most runs of a table share theirs.
    """

    def __init__(self, read: Callable[[str], Sequence[Point]]):
        self.images: list[list[int]] = []
        self._read = read
        self._places: dict[tuple[int, ...], int] = {}

    def of(self, run: str) -> list[int] | None:
        """The index of its images in `images`, then an accuracy for each; None if there is no curve."""
        points = self._read(run)
        if len(points) > MOST:  # the first and the last stay
            points = [points[i * (len(points) - 1) // (MOST - 1)] for i in range(MOST)]
        if not points:
            return None
        images = tuple(point.images for point in points)
        if images not in self._places:
            self._places[images] = len(self.images)
            self.images.append(list(images))
        return [self._places[images], *(round(100 * point.accuracy) for point in points)]
