"""What stands behind the tables of a board, as plain data: Markdown, the page and LaTeX show the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from kdbench.report.formats.markdown import escape, pipe
from kdbench.report.tables.cells import Strip


class Span(NamedTuple):
    """Some words of a paragraph; a `file` lies beside the board."""

    text: str
    kind: Literal["text", "emphasis", "file"] = "text"


@dataclass(frozen=True)
class Section:
    """One section, shown in the order of its attributes. All of it is text that is still to be escaped.

    Attributes:
        intro: a paragraph.
        strips: a table, column by column; none if there is nothing to show.
        about_notes: what the notes say, ending in a colon, or "".
        left_out: what the table could show and does not.
        about_left_out: why not, ending in a colon.
    """

    heading: str
    intro: tuple[Span, ...]
    strips: tuple[Strip, ...] = ()
    about_notes: str = ""
    notes: tuple[str, ...] = ()
    about_left_out: str = ""
    left_out: tuple[str, ...] = ()


def markdown(section: Section) -> str:
    """The section without its heading."""
    notes = "\n".join(f"- {escape(note)}" for note in section.notes)
    parts = [
        "".join(map(_span, section.intro)),
        pipe(section.strips) if section.strips else "",
        escape(section.about_notes) if notes else "",
        notes,
        escape(f"{section.about_left_out} {'; '.join(section.left_out)}.") if section.left_out else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _span(span: Span) -> str:
    text = escape(span.text)
    return {"text": text, "emphasis": f"*{text}*", "file": f"[{text}]({span.text})"}[span.kind]
