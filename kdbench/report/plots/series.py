"""The data of the plots: points with intervals for each row of a table. No matplotlib here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.measures import convergence
from kdbench.report.curves import read as read_curve
from kdbench.report.records import Record, number, scored
from kdbench.report.stats.intervals import Interval, mean_interval
from kdbench.report.tables.rows import Row
from kdbench.report.tables.tables import Table
from kdbench.store.folder import EPOCHS, RunFolder

SEVERITIES = range(1, 6)
_STOPPED = "early_exit.flops."


@dataclass(frozen=True)
class Point:
    """One point of a plot.

    Attributes:
        x, y: mean and interval over seeds; an x that all seeds share has no half-width (None).
        name: name of the exit, or the confidence of an early one; "" elsewhere.
    """

    x: Interval
    y: Interval
    name: str = ""


@dataclass(frozen=True)
class Series:
    """The points of one row of a table, in the order of x."""

    label: str
    points: list[Point]


@dataclass(frozen=True)
class Costs:
    """Accuracy against cost: one point per row, and the label of the cost."""

    axis: str
    series: list[Series]


def labels(rows: Sequence[Row]) -> list[str]:
    """A name for each row, on one line: the method, with its teacher where the method alone is ambiguous."""
    count = Counter(row.method for row in rows)
    return [" ".join((row.method if count[row.method] == 1 else row.name).split()) for row in rows]


def costs(table: Table) -> Costs:
    """Cost of training of each row: seconds if all runs had one device to themselves, otherwise FLOPs of the forward passes."""
    runs = [record for row in table.rows for record in row.runs if scored(record)]
    facts = ("device", "gpus", "runs_per_gpu", "threads", "instructions")
    devices = {tuple(record.get(f"provenance.{fact}", "") for fact in facts) for record in runs}
    device = next(iter(devices))[0] if len(devices) == 1 else ""
    comparable = all(row.has_comparable_times for row in table.rows)
    if device and comparable and any(number(record, "seconds.train") for record in runs):
        return Costs(f"training time, seconds ({device})", _with_cost(table, _seconds))
    return Costs("FLOPs of the forward passes in training", _with_cost(table, _flops))


def _seconds(record: Record) -> float | None:
    return number(record, "seconds.train")


def _flops(record: Record) -> float | None:
    each, images = number(record, "cost.flops_training"), number(record, "images_seen")
    return each * images if each and images else None


def _with_cost(table: Table, cost: Callable[[Record], float | None]) -> list[Series]:
    series = []
    for row, label in zip(table.rows, labels(table.rows), strict=True):
        values = [value for record in row.runs if scored(record) and 0 < (value := cost(record) or 0.0) < math.inf]
        if row.accuracy and values:
            series.append(Series(label, [Point(mean_interval(values), row.accuracy)]))
    return series


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points on the Pareto front, by cost: no other point is as cheap and as accurate, and better in one.

    Args:
        points: cost and accuracy. Of equal points all or none are on the front.
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
    """The validation curve of each row that has one in the folders of its runs."""
    series, folders = [], 0
    for row, label in zip(table.rows, labels(table.rows), strict=True):
        paths = [RunFolder(runs, record["run"]) / EPOCHS for record in row.runs if scored(record)]
        folders += sum(path.is_file() for path in paths)
        points = band([points for points in map(read_curve, paths) if points])
        if points:
            series.append(Series(label, points))
    return Curves(series, folders)


def severities(table: Table) -> list[Series]:
    """Accuracy at each severity of the corruptions; 0 is the clean test set."""
    series = []
    for row, label in zip(table.rows, labels(table.rows), strict=True):
        measured = {s: value for s in SEVERITIES if (value := row.measured(f"robustness.severity.{s}"))}
        if row.accuracy and measured:
            steps = {0: row.accuracy, **measured}
            series.append(Series(label, [Point(_exact(s), value) for s, value in steps.items()]))
    return series


def exits(table: Table, deployed: str) -> list[Series]:
    """Each exit of the rows that have exits, and their deployed network, by FLOPs of one image.

    Args:
        deployed: name of the point of the deployed network.
    """
    series = []
    for row, label in zip(table.rows, labels(table.rows), strict=True):
        keys = {name: (f"cost.flops.{name}", f"exits.{name}") for name in row.exits}
        points = _points(row, keys)
        if points:
            points += _points(row, {deployed: ("cost.flops", "accuracy.last")})
            series.append(Series(label, sorted(points, key=lambda point: (point.x.mean, point.name))))
    return series


def early_exits(table: Table) -> list[Series]:
    """Networks that stop at the first classifier which is confident enough, by mean FLOPs of an image: a point a confidence."""
    series = []
    for row, label in zip(table.rows, labels(table.rows), strict=True):
        keys = [key for record in row.runs for key, value in record.items() if key.startswith(_STOPPED) and value]
        confidences = dict.fromkeys(key.removeprefix(_STOPPED) for key in keys)
        points = _points(row, {at: (_STOPPED + at, f"early_exit.accuracy.{at}") for at in confidences})
        if points:
            series.append(Series(label, sorted(points, key=lambda point: (point.x.mean, point.name))))
    return series


def _points(row: Row, keys: dict[str, tuple[str, str]]) -> list[Point]:
    pairs = [(name, row.measured(x), row.measured(y)) for name, (x, y) in keys.items()]
    return [Point(x, y, name) for name, x, y in pairs if x and y and math.isfinite(x.mean)]


def _exact(value: float) -> Interval:
    return Interval(1, float(value), None)
