"""The sections after the tables of a leaderboard as plain data, which Markdown, the page and LaTeX show alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from kdbench.report.tables.cells import Cells


class Span(NamedTuple):
    """Some words of a paragraph; a `file` is in the folder of the leaderboard."""

    text: str
    kind: Literal["text", "emphasis", "file"] = "text"


@dataclass(frozen=True)
class Section:
    """One section, shown in the order of its attributes. All of it is text that is still to be escaped.

    Attributes:
        intro: a paragraph.
        columns: a table; none if there is nothing to show.
        about_notes: introduces the notes, ending in a colon, or "".
        left_out: entries that the table omits.
        about_left_out: the reason, ending in a colon.
        is_wide: its table may be wider than a page, and is scaled down in print.
    """

    heading: str
    intro: tuple[Span, ...]
    columns: tuple[Cells, ...] = ()
    about_notes: str = ""
    notes: tuple[str, ...] = ()
    about_left_out: str = ""
    left_out: tuple[str, ...] = ()
    is_wide: bool = False
