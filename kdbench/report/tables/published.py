"""Measured against published: rows of our tables next to what papers and repositories report for the same setting."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.config import BASELINE, places
from kdbench.errors import UserError, shortened
from kdbench.report.stats.intervals import Interval, paired_difference
from kdbench.report.stats.power import deviation
from kdbench.report.tables import origins
from kdbench.report.tables.cells import Cells
from kdbench.report.tables.columns import NONE, compact
from kdbench.report.tables.rows import Row
from kdbench.report.tables.sections import Section, Span
from kdbench.report.tables.tables import Table

CSV = "published.csv"
_COLUMNS = ("source", "dataset", "teacher", "student", "method", "top1", "note")
_OPTIONAL = ("epochs", "images", "epoch")
_SAME = "the same dataset, teacher, student and method"
FACTOR = 2.0
"""Budgets that are further apart are not compared."""


@dataclass(frozen=True)
class Published:
    """One published value.

    Attributes:
        teacher, student: "" for none, and for networks that are not named.
        top1: percent, or points above the source's own baseline where `gain`.
        epochs, images: their training; None for unknown.
        epoch: "last", or "best" on the test set; "" for unknown.
    """

    source: str
    dataset: str
    teacher: str
    student: str
    method: str
    top1: float
    gain: bool
    note: str
    epochs: float | None
    images: float | None
    epoch: str

    @property
    def budget(self) -> float | None:
        """Images through the student in training; None for unknown."""
        return self.epochs * self.images if self.epochs and self.images else None


@dataclass(frozen=True)
class Comparison:
    """A row of a table next to one published value of the same dataset, teacher, student and method.

    Attributes:
        least_budget: the smallest budget that any value for this dataset is published at; None if none of them is known.
    """

    table: Table
    row: Row
    ours: Interval
    theirs: Published
    least_budget: float | None = None

    @property
    def name(self) -> str:
        """The row and its student, for notes."""
        return f"{self.row.name} on {self.table.dataset} with {self.table.student}"

    @property
    def difference(self) -> float:
        """Ours minus theirs, in points."""
        return self.ours.mean - self.theirs.top1

    @property
    def errors(self) -> float | None:
        """The difference in units of our standard error s/√n; None for one seed, or where ours do not scatter."""
        sd = deviation(self.ours)
        return self.difference / (sd / math.sqrt(self.ours.n)) if sd and sd > 1e-6 else None

    @property
    def same_budget(self) -> bool:
        """True if the budgets are within `FACTOR`, as far as they are known.

        Where theirs is not known, ours must not be far below all that are.
        """
        seen, theirs = self.row.measured("images_seen"), self.theirs.budget
        if seen is not None and theirs is None:
            return self.least_budget is None or seen.mean >= self.least_budget / FACTOR
        return seen is None or theirs is None or 1 / FACTOR <= seen.mean / theirs <= FACTOR

    @property
    def conditions(self) -> list[str]:
        """Conditions that differ or are not known, a few words each."""
        return list(_conditions(self))


def source(out: Path) -> Path:
    """The file of published values for a leaderboard: its own, or the one that comes with kdbench."""
    own = out / CSV
    return own if own.is_file() else places.own_root() / "leaderboard" / CSV


def read(path: Path) -> list[Published]:
    """All published values of a file.

    Raises:
        UserError: it cannot be read, lacks a column, or has a row that cannot be read.
    """
    try:
        records = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        lacking = [name for name in _COLUMNS if name not in (records.fieldnames or ())]
        rows = [(records.line_num, record) for record in records]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if lacking:
        raise UserError(f"{path} lacks the column {', '.join(lacking)}")
    return [
        _published({key: (record.get(key) or "").strip() for key in _COLUMNS + _OPTIONAL}, f"{path}, line {line}")
        for line, record in rows
    ]


def _published(record: dict[str, str], where: str) -> Published:
    def number(key: str) -> float | None:
        try:
            value = float(record[key]) if record[key] else None
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise UserError(f"{where}: {key} must be a number, not '{shortened(record[key])}'")
        return value

    top1 = number("top1")
    if top1 is None:
        raise UserError(f"{where}: top1 is missing")
    return Published(
        source=record["source"],
        dataset=record["dataset"],
        teacher=record["teacher"],
        student=record["student"],
        method=record["method"],
        top1=top1,
        gain=record["top1"].startswith("+"),
        note=record["note"],
        epochs=number("epochs"),
        images=number("images"),
        epoch=record["epoch"],
    )


def compare(tables: Iterable[Table], published: Sequence[Published]) -> list[Comparison]:
    """All pairs of a row and a published value, in the order of the tables."""
    alike: dict[tuple[str, ...], list[Published]] = defaultdict(list)
    budgets: dict[str, list[float]] = defaultdict(list)
    for theirs in published:
        budgets[theirs.dataset] += [theirs.budget] if theirs.budget else []
        alike[theirs.dataset, theirs.student, theirs.method, theirs.teacher].append(theirs)
    pairs = []
    for table in tables:
        for row in table.rows:
            record = row.runs[0]
            for theirs in alike.get((table.dataset, table.student, record["method"], record["teacher"]), ()):
                ours = _gain(table, row) if theirs.gain else row.accuracy
                if ours:
                    pairs.append(Comparison(table, row, ours, theirs, min(budgets[table.dataset], default=None)))
    return pairs


def _gain(table: Table, row: Row) -> Interval | None:
    """The difference from the student trained alone, which is what papers report, whatever the table takes as its baseline."""
    if table.baseline == BASELINE:
        return row.difference
    base = next((other for other in table.rows if other.has_defaults_of(BASELINE) and other.accuracy), None)
    difference = paired_difference(row.by_seed, base.by_seed) if base and base is not row else None
    return difference if difference and difference.n else None


def _conditions(pair: Comparison) -> Iterator[str]:
    theirs, records = pair.theirs, pair.row.runs
    seen = pair.row.measured("images_seen")
    if theirs.budget is None:
        yield "their budget is not known"
    elif seen and abs(seen.mean / theirs.budget - 1) > 0.01:
        yield f"{compact(seen.mean)} images seen in training here, and there {_budget(theirs)}"
    if any(record["accuracy.val"] for record in records):
        yield "a validation split is held out of the training images here"
    if theirs.epoch == "best":
        yield "they report the epoch that was best on the test set; we report the last"
    elif theirs.epoch != "last":
        yield "which epoch they report is not known"
    if theirs.gain:
        yield f"gains over each one's own {BASELINE}"
    if theirs.note:
        yield f"their note: {theirs.note}"


def _budget(theirs: Published) -> str:
    return f"{compact(theirs.budget or 0)}, {theirs.epochs:g} epochs of {compact(theirs.images or 0)}"


def section(comparisons: Sequence[Comparison], file: Span) -> Section:
    """The section of a leaderboard.

    Args:
        file: file of the published values.
    """
    pairs = [pair for pair in comparisons if pair.same_budget]
    units = (
        Span(f"Ours minus what is published for {_SAME}, in points and in units of "),
        Span("our", "emphasis"),
        Span(" standard error s/√n; theirs is not known. The published values are in "),
        file,
        Span("."),
    )
    none = Span(
        f"No table here has a row for which a value is published with {_SAME} at a budget within a factor of {FACTOR:g}."
    )
    return Section(
        "Published against measured",
        units if pairs else (none,),
        _grid(pairs) if pairs else (),
        "Other differences:",
        tuple(_notes(pairs)),
        "Not compared, because published at another budget or at one that is not known:",
        tuple(_other(pair) for pair in comparisons if not pair.same_budget),
    )


def _grid(pairs: Sequence[Comparison]) -> tuple[Cells, ...]:
    def signed(value: float | None, digits: int) -> str:
        return NONE if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"

    halves = ["" if pair.ours.half_width is None else f" ± {pair.ours.half_width:.2f}" for pair in pairs]
    return (
        Cells("Table", [f"{p.table.dataset} · {p.table.student} · {p.table.protocol}" for p in pairs], number=False),
        Cells("Row", [pair.row.name for pair in pairs], number=False),
        Cells("n", [str(pair.ours.n) for pair in pairs]),
        Cells("Ours", [f"{pair.ours.mean:.2f}{half}" for pair, half in zip(pairs, halves, strict=True)]),
        Cells("Published", [f"{pair.theirs.top1:{'+' if pair.theirs.gain else ''}.2f}" for pair in pairs]),
        Cells("Difference", [signed(pair.difference, 2) for pair in pairs]),
        Cells("Standard errors", [signed(pair.errors, 1) for pair in pairs]),
        Cells("Source", [pair.theirs.source for pair in pairs], number=False),
    )


def _notes(pairs: Sequence[Comparison]) -> Iterator[str]:
    by_condition: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        for condition in pair.conditions:
            by_condition[condition].append(pair.name)
    for condition, names in by_condition.items():
        every = "all rows" if len(names) == len(pairs) else ", ".join(dict.fromkeys(names))
        yield f"{condition} ({every})"
    yield from origins.unconfirmed([pair.row for pair in pairs], [pair.name for pair in pairs])


def _other(pair: Comparison) -> str:
    seen = pair.row.measured("images_seen")
    ours = f"{pair.ours.mean:.2f} after {compact(seen.mean if seen else 0)} images"
    theirs = f"after {_budget(pair.theirs)}" if pair.theirs.budget else "with an unknown budget"
    return f"{pair.name} ({ours}, published {pair.theirs.top1:.2f} {theirs}: {pair.theirs.source})"
