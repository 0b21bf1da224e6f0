"""Records → one table for each protocol, dataset and student, with ranks and differences from the baseline."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from kdbench.config import BASELINE
from kdbench.errors import unknown
from kdbench.report import purposes
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
        baseline: the method that differences are taken from.
    """

    dataset: str
    student: str
    recipe: str
    protocol: str
    rows: list[Row]
    notes: list[str]
    baseline: str = BASELINE

    @property
    def is_of_teachers(self) -> bool:
        """True if it only has runs that were made to teach others."""
        return all(row.is_of_teachers for row in self.rows)

    @property
    def title(self) -> str:
        """Everything that the runs of this table share, on one line."""
        recipe = f"recipe {self.recipe}" if self.recipe else ""
        return " · ".join(filter(None, [self.dataset, self.student, recipe, f"protocol {self.protocol}"]))


def summarise(results: Iterable[Mapping[str, Any]], baseline: str = BASELINE) -> list[Table]:
    """The tables of results in memory, such as those of one plan; see `tables`."""
    return tables(frame(results), baseline)


def tables(records: pd.DataFrame, baseline: str = BASELINE) -> list[Table]:
    """The tables of records in canonical form (kdbench.report.records), sorted by dataset, student and protocol.

    Tables that only hold teachers come last.

    Args:
        baseline: the method that differences are taken from, with its usual values.

    Raises:
        UserError: no table has that method; never for the usual baseline.
    """
    records = purposes.filled(records)
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    names = list(records.columns)
    for cells in records.to_numpy().tolist():  # several times as fast as groupby and to_dict
        record = dict(zip(names, cells, strict=True))
        groups[record["dataset"], record["student"], record["protocol"]].append(record)
    made = [_table(place, group, baseline) for place, group in sorted(groups.items())]
    _check_baseline(baseline, made)
    return sorted(made, key=lambda table: table.is_of_teachers)


def _check_baseline(baseline: str, made: Iterable[Table]) -> None:
    methods = {row.runs[0]["method"] for table in made for row in table.rows}
    usual = {method for method in methods for table in made if any(row.has_defaults_of(method) for row in table.rows)}
    if baseline not in (BASELINE, *usual):
        raise unknown("baseline", baseline, usual)


def _table(place: tuple[str, str, str], records: list[Record], baseline: str) -> Table:
    """The table of one dataset, student and protocol."""
    # Two recipes may resolve to one protocol, and so may a recipe and another one with overrides.
    recipes = {with_values(record["recipe"], record["overrides"], short=False) for record in records}
    named = _with_unique_names(rows(records))
    bases = [row for row in named if row.has_defaults_of(baseline) and row.accuracy]
    base = bases[0] if len(bases) == 1 else None
    differences = Differences({row.name: row.values for row in named}, base.name if base else None)
    ranked = _ranked([replace(row, differences=differences) for row in named])
    annotated, notes = annotate(ranked, base, baseline)
    dataset, student, protocol = place
    return Table(dataset, student, " or ".join(sorted(recipes)), protocol, annotated, notes, baseline)


def _with_unique_names(table: Sequence[Row]) -> list[Row]:
    """Rows whose teachers look alike get the beginning of their teacher's checksum; so do files of one name that differ."""
    alike = Counter((row.method, row.teacher) for row in table)
    weights: dict[str, set[str]] = defaultdict(set)
    for row in table:
        checksums = {_checksum(record) for record in row.runs if _checksum(record)}
        weights[row.teacher] |= checksums
        if any(map(from_file, row.runs)):
            weights[row.runs[0]["teacher"]] |= checksums

    def with_weights(row: Row) -> Row:
        checksums = (_checksum(record)[:8] for record in row.runs if _checksum(record))
        return replace(row, teacher=f"{row.teacher} {next(checksums, 'unknown weights')}".strip())

    def is_ambiguous(row: Row) -> bool:
        names = [row.teacher, *(record["teacher"] for record in row.runs if from_file(record))]
        return alike[row.method, row.teacher] > 1 or any(len(weights[name]) > 1 for name in names)

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
