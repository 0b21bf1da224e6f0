"""Validation curves of runs, read from their folders."""

from __future__ import annotations

import csv
from pathlib import Path

from kdbench.measures import convergence
from kdbench.measures.convergence import Point


def read(epochs_csv: Path) -> list[Point]:
    """The validation curve of a run, without values that cannot have been measured; empty if none can be read."""
    try:
        return [point for point in convergence.read(epochs_csv) if _plausible(point)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []


def _plausible(point: Point) -> bool:
    """True if this can have been measured: a file may be damaged in any way."""
    return 0 <= point.accuracy <= 100 and 0 < point.images < 1e18
