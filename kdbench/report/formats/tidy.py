"""All tables as one CSV file at full precision: a row for each line, whatever table it is of."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from kdbench.report.stats.power import deviation
from kdbench.report.tables import reached
from kdbench.report.tables.columns import Column, shown
from kdbench.report.tables.rows import Line, number
from kdbench.report.tables.tables import Table

_FIRST = (
    "dataset",
    "student",
    "recipe",
    "protocol",
    "rank",
    "method",
    "parameters",
    "teacher",
    "teacher_accuracy",
    "n",
    "failed",
)
_LAST = ("marks", "notes", "config", "commits", "runs")


def tidy(found: Sequence[Table], names: Sequence[str] | None = None) -> str:
    """The file `tables.csv`.

    A column has the mean in the unit of the results; `NAME.n` says over how many seeds, and for those that tables show with
    an interval there are `NAME.sd`, `NAME.low` and `NAME.high`. For those that wait for an accuracy `NAME.never` says how many
    seeds never reached it: the mean is of the others. What has not been measured is empty.

    Args:
        names: of the columns; None for those of the default set that any line has.
    """
    columns = shown(names, [line for table in found for line in table.lines])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_FIRST, *(head for column in columns for head in _heads(column)), *_LAST])
    for table in found:
        for line in table.lines:
            writer.writerow([*_identity(table, line), *_values(columns, line), *_told(table, line)])
    return out.getvalue()


def _heads(column: Column) -> list[str]:
    ends = ("", ".n", ".sd", ".low", ".high") if column.spread else ("", ".n") if column.key else ("",)
    return [f"{column.name}{end}" for end in (*ends, *_never(column))]


def _never(column: Column) -> tuple[str, ...]:
    return (".never",) if reached.accuracy(column.key) is not None else ()


def _identity(table: Table, line: Line) -> list[object]:
    row = line.runs[0]
    teachers = [value for run in line.runs if (value := number(run, "teacher.accuracy")) is not None]
    where = [table.dataset, table.student, table.recipe, table.protocol, line.rank]
    what = [row["method"], row["method.parameters"], row["teacher"], teachers[0] if teachers else None]
    return [*where, *what, line.accuracy.n if line.accuracy else 0, len(line.failed)]


def _values(columns: Iterable[Column], line: Line) -> Iterator[object]:
    for column in columns:
        value, never = column.value(line), column.never(line)
        half = value.half_width if value else None
        spread = None if value is None or half is None else (deviation(value), value.mean - half, value.mean + half)
        yield value.mean if value else None
        if column.key or column.spread:
            yield value.n if value else 0 if never else None
        if column.spread:
            yield from spread or (None, None, None)
        if _never(column):
            yield never if value or never else None


def _told(table: Table, line: Line) -> list[str]:
    runs = " ".join(row["run"] for row in line.runs)
    return [line.marks, " | ".join(table.notes), line.config, " ".join(line.commits), runs]
