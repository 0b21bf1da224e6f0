"""Rows → one table for each protocol, dataset and student, with ranks and differences to the baseline."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from kdbench.report.records import frame
from kdbench.report.stats.differences import Differences
from kdbench.report.stats.significance import ranks
from kdbench.report.tables.notes import annotate
from kdbench.report.tables.rows import Line, Row, lines, with_values


@dataclass(frozen=True, eq=False)
class Table:
    """Runs that may be compared: equal protocol, dataset and student.

    Attributes:
        recipe: its name or names, with what the user overrode.
        lines: the highest mean accuracy first, failed ones last.
        notes: sentences that belong below.
    """

    dataset: str
    student: str
    recipe: str
    protocol: str
    lines: list[Line]
    notes: list[str]

    @property
    def title(self) -> str:
        """What is compared here, in one line."""
        recipe = f"recipe {self.recipe}" if self.recipe else ""
        return " · ".join(filter(None, [self.dataset, self.student, recipe, f"protocol {self.protocol}"]))


def summarise(results: Iterable[Mapping[str, Any]]) -> list[Table]:
    """The tables of results that are at hand, such as those of one plan."""
    return tables(frame(results))


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of rows in canonical form (kdbench.report.rows), sorted by dataset, student and protocol."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    names = list(rows.columns)
    for cells in rows.to_numpy().tolist():  # several times as fast as groupby and to_dict
        row = dict(zip(names, cells, strict=True))
        groups[row["dataset"], row["student"], row["protocol"]].append(row)
    return [_table(dataset, student, protocol, group) for (dataset, student, protocol), group in sorted(groups.items())]


def _table(dataset: str, student: str, protocol: str, rows: list[Row]) -> Table:
    # Two recipes may resolve to one protocol, and so may a recipe and another one with overrides.
    recipes = {with_values(row["recipe"], row["overrides"], short=False) for row in rows}
    found = _told_apart(lines(rows))
    base = next((line for line in found if line.is_baseline and line.accuracy), None)
    differences = Differences(found, base)
    ranked = _ranked([replace(line, differences=differences) for line in found])
    return Table(dataset, student, " or ".join(sorted(recipes)), protocol, *annotate(ranked, base))


def _told_apart(found: list[Line]) -> list[Line]:
    """Lines that look alike get the beginning of their teacher's checksum."""
    alike = Counter((line.method, line.teacher) for line in found)

    def with_weights(line: Line) -> Line:
        weights = next((row["teacher.sha256"][:8] for row in line.runs if row.get("teacher.sha256")), "unknown weights")
        return replace(line, teacher=f"{line.teacher} {weights}".strip())

    return [with_weights(line) if alike[line.method, line.teacher] > 1 else line for line in found]


def _ranked(found: list[Line]) -> list[Line]:
    """Sorted by mean accuracy; means that agree to a millionth are equal, so that rounding breaks no tie."""
    ranked = [
        replace(line, rank=rank) for line, rank in zip(found, ranks([line.by_seed for line in found]), strict=True)
    ]

    def place(line: Line) -> tuple[float, str, str]:
        return -round(line.accuracy.mean, 6) if line.accuracy else math.inf, line.method, line.teacher

    return sorted(ranked, key=place)
