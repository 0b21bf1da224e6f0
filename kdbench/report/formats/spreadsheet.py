"""CSV files that people open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from kdbench.words import printable

_FORMULA = ("=", "+", "-", "@")
"""Beginnings of texts that spreadsheets take for formulas; OWASP, "CSV Injection"."""


def document(rows: Iterable[Iterable[object]]) -> str:
    """A CSV file of these rows; None is an empty cell, and numbers are written as Python writes them.

    Texts are printable and on one line. One that a spreadsheet would take for a formula begins with an apostrophe, which
    spreadsheets do not show.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(map(_harmless, row) for row in rows)
    return out.getvalue()


def _harmless(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
