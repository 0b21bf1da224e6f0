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
        worth: columns worth less are dropped first where there is no room; 0 is never dropped.
    """

    header: str
    texts: list[str]
    number: bool = True
    worth: int = 0


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
        Cells("#", [str(row.rank or NONE) for row in rows], worth=KEPT + 1),
        Cells("Method", [" ".join(filter(None, [row.method, row.marks])) for row in rows], number=False),
        Cells("Teacher", [row.teacher or NONE for row in rows], number=False, worth=KEPT),
        Cells("n", [_seeds(row) for row in rows]),
    ]
    selected = [
        Cells(column.title, [column.text(row) for row in rows], worth=column.worth) for column in shown(names, rows)
    ]
    return [column for column in always if set(column.texts) != {NONE}] + selected


def _seeds(row: Row) -> str:
    n = row.accuracy.n if row.accuracy else 0
    return f"{n}, {len(row.failed)} failed" if row.failed else str(n)
