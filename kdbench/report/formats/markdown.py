"""Tables and sections as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from tabulate import tabulate

from kdbench.report.tables.cells import Cells, cells
from kdbench.report.tables.sections import Section, Span
from kdbench.report.tables.tables import Table
from kdbench.words import printable


@lru_cache(maxsize=4096)  # most cells of many tables are alike
def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table as well."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", text)
    # Inside a word an underscore means nothing, and names are easier to read without the backslash.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def code(text: str) -> str:
    """Text as a code span, whatever backticks are in it."""
    text = printable(text)
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}"


def pipe(columns: Sequence[Cells]) -> str:
    """A Markdown table."""
    table: str = tabulate(
        [list(row) for row in zip(*map(_escaped, columns), strict=True)],
        headers=[escape(column.header) if column.header != "#" else "#" for column in columns],
        tablefmt="pipe",
        colalign=["right" if column.number else "left" for column in columns],
        disable_numparse=True,
    )
    return table


def _escaped(column: Cells) -> list[str]:
    texts = map(escape, column.texts)
    return [f"**{text}**" if place in column.strong else text for place, text in enumerate(texts)]


def markdown(table: Table, names: Iterable[str] | None = None) -> str:
    """The grid and the notes, without the title."""
    grid = pipe(cells(table, names))
    return "\n".join([grid, "", *(f"- {escape(note)}" for note in table.notes)]).rstrip() + "\n"


def markdown_section(section: Section) -> str:
    """The section without its heading."""
    notes = "\n".join(f"- {escape(note)}" for note in section.notes)
    parts = [
        "".join(map(_span, section.intro)),
        pipe(section.columns) if section.columns else "",
        escape(section.about_notes) if notes else "",
        notes,
        escape(f"{section.about_left_out} {'; '.join(section.left_out)}.") if section.left_out else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _span(span: Span) -> str:
    text = escape(span.text)
    return {"text": text, "emphasis": f"*{text}*", "file": f"[{text}]({span.text})"}[span.kind]
