"""What pictures show, as numbers: points with intervals for each line of a table. No matplotlib here."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.measures import convergence
from kdbench.report.stats.intervals import Interval, mean_interval
from kdbench.report.tables.rows import Line, Row, number, scored
from kdbench.report.tables.tables import Table
from kdbench.store.folder import EPOCHS, RunFolder

SEVERITIES = range(1, 6)


@dataclass(frozen=True)
class Point:
    """One point of a picture.

    Attributes:
        x, y: mean and interval over seeds; of an x that all seeds share the interval is None wide.
        name: of the exit; "" elsewhere.
    """

    x: Interval
    y: Interval
    name: str = ""


@dataclass(frozen=True)
class Series:
    """The points of one line of a table, in the order of x."""

    label: str
    points: list[Point]


@dataclass(frozen=True)
class Costs:
    """Accuracy against cost: one point a line, and what the cost is."""

    axis: str
    series: list[Series]


def labels(lines: Sequence[Line]) -> list[str]:
    """A name for each line: the method, with its teacher where the method alone is ambiguous; in one line of text."""
    count = Counter(line.method for line in lines)
    return [" ".join((line.method if count[line.method] == 1 else line.name).split()) for line in lines]


def costs(table: Table) -> Costs:
    """What each line's training cost: seconds if all runs had the same device, FLOPs of the forward passes otherwise."""
    runs = [row for line in table.lines for row in line.runs if scored(row)]
    devices = {tuple(row.get(f"provenance.{key}", "") for key in ("device", "gpus", "threads")) for row in runs}
    device = next(iter(devices))[0] if len(devices) == 1 else ""
    if device and any(number(row, "seconds.train") for row in runs):
        return Costs(f"training time, seconds ({device})", _with_cost(table, _seconds))
    return Costs("FLOPs of the forward passes in training", _with_cost(table, _flops))


def _seconds(row: Row) -> float | None:
    return number(row, "seconds.train")


def _flops(row: Row) -> float | None:
    each, images = number(row, "cost.flops_training"), number(row, "images_seen")
    return each * images if each and images else None


def _with_cost(table: Table, cost: Callable[[Row], float | None]) -> list[Series]:
    found = []
    for line, label in zip(table.lines, labels(table.lines), strict=True):
        values = [value for row in line.runs if scored(row) and 0 < (value := cost(row) or 0.0) < math.inf]
        if line.accuracy and values:
            found.append(Series(label, [Point(mean_interval(values), line.accuracy)]))
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats: none costs as little and reaches as much, with one of the two better; by cost.

    Args:
        points: cost and accuracy. Equal points stand or fall together.
    """

    def beaten(cost: float, accuracy: float) -> bool:
        return any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)

    order = sorted(range(len(points)), key=lambda i: points[i])
    return [i for i in order if not beaten(*points[i])]


def band(curves: Sequence[Sequence[convergence.Point]]) -> list[Point]:
    """Mean and 95 % interval of the curves of several seeds, at the numbers of images that all of them have."""
    by_images = [{point.images: point.accuracy for point in curve} for curve in curves]
    shared = set.intersection(*map(set, by_images)) if by_images else set()
    return [Point(_exact(images), mean_interval(curve[images] for curve in by_images)) for images in sorted(shared)]


@dataclass(frozen=True)
class Curves:
    """The validation curves of a table; `folders`: how many of its runs have a folder with epochs."""

    series: list[Series]
    folders: int


def curves(table: Table, runs: Path) -> Curves:
    """The validation curve of each line that has one in the folders of its runs."""
    found, folders = [], 0
    for line, label in zip(table.lines, labels(table.lines), strict=True):
        paths = [RunFolder(runs, row["run"]) / EPOCHS for row in line.runs if scored(row)]
        folders += sum(path.is_file() for path in paths)
        points = band([points for points in map(curve, paths) if points])
        if points:
            found.append(Series(label, points))
    return Curves(found, folders)


def curve(epochs_csv: Path) -> list[convergence.Point]:
    """The validation curve of a run; without what cannot have been measured, and empty where there is none to be read."""
    try:
        return [point for point in convergence.read(epochs_csv) if _usable(point)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []


def _usable(point: convergence.Point) -> bool:
    """Whether this can have been measured: a file may be damaged in any way."""
    return 0 <= point.accuracy <= 100 and 0 < point.images < 1e18


def severities(table: Table) -> list[Series]:
    """Accuracy at each severity of the corruptions; 0 is the clean test set."""
    found = []
    for line, label in zip(table.lines, labels(table.lines), strict=True):
        measured = {s: value for s in SEVERITIES if (value := line.measured(f"robustness.severity.{s}"))}
        if line.accuracy and measured:
            steps = {0: line.accuracy, **measured}
            found.append(Series(label, [Point(_exact(s), value) for s, value in steps.items()]))
    return found


def exits(table: Table, deployed: str) -> list[Series]:
    """Each exit of the lines that have exits, and their deployed network, by FLOPs of one image.

    Args:
        deployed: what the point of the deployed network is called.
    """
    found = []
    for line, label in zip(table.lines, labels(table.lines), strict=True):
        keys = {name: (f"cost.flops.{name}", f"exits.{name}") for name in line.exits}
        points = _points(line, keys)
        if points:
            points += _points(line, {deployed: ("cost.flops", "accuracy.last")})
            found.append(Series(label, sorted(points, key=lambda point: (point.x.mean, point.name))))
    return found


def _points(line: Line, keys: dict[str, tuple[str, str]]) -> list[Point]:
    pairs = [(name, line.measured(x), line.measured(y)) for name, (x, y) in keys.items()]
    return [Point(x, y, name) for name, x, y in pairs if x and y and math.isfinite(x.mean)]


def _exact(value: float) -> Interval:
    return Interval(1, float(value), None)
