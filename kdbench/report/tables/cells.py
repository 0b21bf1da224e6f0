"""The cells of a table as text, column by column, for Markdown, the terminal, LaTeX and the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from kdbench.report.tables.columns import NONE, shown
from kdbench.report.tables.rows import Row
from kdbench.report.tables.tables import Table

KEPT = 8
"""Columns worth this much are what a table is about."""


@dataclass(frozen=True)
class Cells:
    """The cells of one column.

    Attributes:
        texts: one per row, still to be escaped.
        number: aligned to the right and never broken.
        about: one sentence on the column; "" if its header is enough.
        strong: places of the rows that stand out.
        worth: columns worth less are dropped first where there is no room; 0 is never dropped.
    """

    header: str
    texts: list[str]
    number: bool = True
    worth: int = 0
    about: str = ""
    strong: frozenset[int] = frozenset()


def cells(table: Table, names: Iterable[str] | None = None) -> list[Cells]:
    """The columns of a table, from left to right.

    Args:
        names: columns to show (kdbench.report.tables.columns); None for those of the default set that any row has.
    """
    asked = None if names is None else tuple(names)
    by_names = _cache.setdefault(table, {})  # several files show the same
    if asked not in by_names:
        by_names[asked] = _cells(table, asked)
    return list(by_names[asked])


_cache: WeakKeyDictionary[Table, dict[tuple[str, ...] | None, list[Cells]]] = WeakKeyDictionary()


def _cells(table: Table, names: Sequence[str] | None) -> list[Cells]:
    rows = table.rows
    always = [
        Cells(
            "#",
            [str(row.rank or NONE) for row in rows],
            worth=KEPT + 1,
            about="1 + the number of rows that are significantly better, with Holm's correction over all pairs of rows, and "
            "at least that of the row above",
        ),
        Cells(
            "Method",
            [" ".join(filter(None, [row.method, row.marks])) for row in rows],
            number=False,
            about="with its own parameters where they are not the usual ones",
        ),
        Cells(
            "Teacher",
            [row.teacher or NONE for row in rows],
            number=False,
            worth=KEPT,
            about="with its accuracy on the test set, in percent",
        ),
        Cells("n", [_seeds(row) for row in rows], about="number of seeds that have finished"),
    ]
    selected = [
        Cells(column.title, [column.text(row) for row in rows], worth=column.worth, about=column.about)
        for column in shown(names, rows, table.baseline)
    ]
    return [column for column in always if set(column.texts) != {NONE}] + selected


def legend(tables: Iterable[Table], names: Iterable[str] | None = None) -> dict[str, str]:
    """Explanations of the columns of these tables, by header, in the order in which they appear.

    Args:
        names: as in `cells`.
    """
    asked = None if names is None else tuple(names)
    return {column.header: column.about for table in tables for column in cells(table, asked)}


def _seeds(row: Row) -> str:
    n = row.accuracy.n if row.accuracy else 0
    contradicted = len(row.contradicted)
    counts = {"failed": len(row.failed) - contradicted, "contradicted": contradicted}
    return ", ".join([str(n), *(f"{number} {what}" for what, number in counts.items() if number)])
