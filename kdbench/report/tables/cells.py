"""The cells of a table as text, column by column: what Markdown, the terminal and LaTeX all show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from kdbench.report.tables.columns import NONE, shown
from kdbench.report.tables.rows import Line
from kdbench.report.tables.tables import Table

KEPT = 8
"""Columns worth this much are what a table is about."""


@dataclass(frozen=True)
class Strip:
    """A column of one table with its text cells.

    Attributes:
        number: aligned to the right and never broken.
        worth: where there is no room, the column worth least goes first; 0 never goes.
    """

    header: str
    cells: list[str]
    number: bool = True
    worth: int = 0


def strips(table: Table, names: Iterable[str] | None = None) -> list[Strip]:
    """What a table shows, from left to right.

    Args:
        names: of the columns (kdbench.report.columns); None for those of the default set that have anything to say.
    """
    asked = None if names is None else tuple(names)
    known = _known.setdefault(table, {})  # several files show the same
    if asked not in known:
        known[asked] = _strips(table, asked)
    return list(known[asked])


_known: WeakKeyDictionary[Table, dict[tuple[str, ...] | None, list[Strip]]] = WeakKeyDictionary()


def _strips(table: Table, names: Sequence[str] | None) -> list[Strip]:
    lines = table.lines
    told_apart = [
        Strip("#", [str(line.rank or NONE) for line in lines], worth=KEPT + 1),
        Strip("Method", [" ".join(filter(None, [line.method, line.marks])) for line in lines], number=False),
        Strip("Teacher", [line.teacher or NONE for line in lines], number=False, worth=KEPT),
        Strip("n", [_seeds(line) for line in lines]),
    ]
    found = [strip for strip in told_apart if set(strip.cells) != {NONE}]
    for column in shown(names, lines):
        found.append(Strip(column.title, [column.text(line) for line in lines], worth=column.worth))
    return found


def _seeds(line: Line) -> str:
    n = line.accuracy.n if line.accuracy else 0
    return f"{n}, {len(line.failed)} failed" if line.failed else str(n)
