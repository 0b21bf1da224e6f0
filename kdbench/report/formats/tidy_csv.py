"""All tables as one tidy CSV file: one record per row of a table, and no text that is for reading only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kdbench.plan.spec import COMPARISON, TEACHER
from kdbench.report.formats import spreadsheet
from kdbench.report.records import number
from kdbench.report.stats.power import deviation
from kdbench.report.tables import targets
from kdbench.report.tables.columns import DEFAULT, Column, find, shown
from kdbench.report.tables.rows import Row
from kdbench.report.tables.tables import Table
from kdbench.words import nine_digits

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
    "purpose",
    "baseline",
)
_LAST = ("marks", "notes", "config", "commits", "runs")


def document(tables: Sequence[Table], names: Sequence[str] | None = None) -> str:
    """The file `tables.csv`.

    A column has the mean in the unit of the results, and `NAME.n` is the number of seeds. Columns that tables show with an
    interval also have `NAME.sd`, `NAME.low` and `NAME.high`. Columns with a target accuracy have `NAME.never`, the number of
    seeds that never reached it; their mean is of the others. What was not measured is empty. Numbers have nine significant
    digits, whole ones all of theirs.

    Args:
        names: names of the columns; None for those of the default set that any row has.
    """
    if names is None:
        used = {column.name for table in tables for column in shown(None, table.rows)}
        columns = [find(name) for name in DEFAULT if name in used]
    else:
        columns = shown(names, [row for table in tables for row in table.rows])
    head = [*_FIRST, *(head for column in columns for head in _heads(column)), *_LAST]
    rows = (
        [*_identity(table, row), *_values(columns, row), *_provenance(table, row)]
        for table in tables
        for row in table.rows
    )
    return spreadsheet.document([head, *rows])


def _heads(column: Column) -> list[str]:
    ends = ("", ".n", ".sd", ".low", ".high") if column.spread else ("", ".n") if column.key else ("",)
    return [f"{column.name}{end}" for end in (*ends, *_never(column))]


def _never(column: Column) -> tuple[str, ...]:
    return (".never",) if targets.target(column.key) is not None else ()


def _identity(table: Table, row: Row) -> list[object]:
    record = row.runs[0]
    teachers = [value for run in row.runs if (value := number(run, "teacher.accuracy")) is not None]
    where = [table.dataset, table.student, table.recipe, table.protocol, row.rank]
    what = [record["method"], record["method.parameters"], record["teacher"], teachers[0] if teachers else None]
    purpose = TEACHER if row.is_of_teachers else COMPARISON
    return [*where, *what, row.accuracy.n if row.accuracy else 0, len(row.failed), purpose, table.baseline]


def _values(columns: Iterable[Column], row: Row) -> Iterator[object]:
    for column in columns:
        value, never = column.value(row), column.never(row)
        half = value.half_width if value else None
        yield _rounded(value.mean) if value else None
        if column.key or column.spread:
            yield value.n if value else 0 if never else None
        if column.spread:
            spread = (
                (None,) * 3
                if value is None or half is None
                else (deviation(value), value.mean - half, value.mean + half)
            )
            yield from map(_rounded, spread)
        if _never(column):
            yield never if value or never else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else nine_digits(value)


def _provenance(table: Table, row: Row) -> list[str]:
    runs = " ".join(record["run"] for record in row.runs)
    return [row.marks, " | ".join(table.notes), row.config, " ".join(row.commits), runs]
