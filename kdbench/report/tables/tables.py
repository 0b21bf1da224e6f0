"""Records → one table for each protocol, dataset and student, with ranks and differences from the baseline."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from kdbench.report.records import Record, frame
from kdbench.report.stats.differences import Differences
from kdbench.report.stats.significance import ranks
from kdbench.report.tables.notes import annotate
from kdbench.report.tables.rows import Row, from_file, rows, with_values


@dataclass(frozen=True, eq=False)
class Table:
    """Runs that may be compared: equal protocol, dataset and student.

    Attributes:
        recipe: its name or names, with what the user overrode.
        rows: the highest mean accuracy first, failed ones last.
        notes: sentences that belong below.
    """

    dataset: str
    student: str
    recipe: str
    protocol: str
    rows: list[Row]
    notes: list[str]

    @property
    def title(self) -> str:
        """Everything that the runs of this table share, on one line."""
        recipe = f"recipe {self.recipe}" if self.recipe else ""
        return " · ".join(filter(None, [self.dataset, self.student, recipe, f"protocol {self.protocol}"]))


def summarise(results: Iterable[Mapping[str, Any]]) -> list[Table]:
    """The tables of results in memory, such as those of one plan."""
    return tables(frame(results))


def tables(records: pd.DataFrame) -> list[Table]:
    """The tables of records in canonical form (kdbench.report.records), sorted by dataset, student and protocol."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    names = list(records.columns)
    for cells in records.to_numpy().tolist():  # several times as fast as groupby and to_dict
        record = dict(zip(names, cells, strict=True))
        groups[record["dataset"], record["student"], record["protocol"]].append(record)
    return [_table(dataset, student, protocol, group) for (dataset, student, protocol), group in sorted(groups.items())]


def _table(dataset: str, student: str, protocol: str, records: list[Record]) -> Table:
    # Two recipes may resolve to one protocol, and so may a recipe and another one with overrides.
    recipes = {with_values(record["recipe"], record["overrides"], short=False) for record in records}
    named = _with_unique_names(rows(records))
    base = next((row for row in named if row.is_baseline and row.accuracy), None)
    differences = Differences({row.name: row.values for row in named}, base.name if base else None)
    ranked = _ranked([replace(row, differences=differences) for row in named])
    return Table(dataset, student, " or ".join(sorted(recipes)), protocol, *annotate(ranked, base))


def _with_unique_names(table: Sequence[Row]) -> list[Row]:
    """Rows that look alike get the beginning of their teacher's checksum, and files of one name that are different weights."""
    alike = Counter((row.method, row.teacher) for row in table)
    files = {(r["teacher"], r["teacher.sha256"]) for row in table for r in row.runs if from_file(r) and _checksum(r)}
    several = {name for name, number in Counter(name for name, _ in files).items() if number > 1}

    def with_weights(row: Row) -> Row:
        checksums = (_checksum(record)[:8] for record in row.runs if _checksum(record))
        return replace(row, teacher=f"{row.teacher} {next(checksums, 'unknown weights')}".strip())

    def is_ambiguous(row: Row) -> bool:
        return alike[row.method, row.teacher] > 1 or any(from_file(r) and r["teacher"] in several for r in row.runs)

    return [with_weights(row) if is_ambiguous(row) else row for row in table]


def _checksum(record: Record) -> str:
    checksum: str = record.get("teacher.sha256", "")
    return checksum


def _ranked(table: Sequence[Row]) -> list[Row]:
    """Sorted by mean accuracy; means that agree to a millionth are equal, so that rounding breaks no tie."""
    ranked = [replace(row, rank=rank) for row, rank in zip(table, ranks([row.by_seed for row in table]), strict=True)]

    def place(row: Row) -> tuple[float, str, str]:
        return -round(row.accuracy.mean, 6) if row.accuracy else math.inf, row.method, row.teacher

    return sorted(ranked, key=place)
