"""A table as Markdown and for the terminal: the same cells, the same notes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table as Grid
from rich.text import Text
from tabulate import tabulate

from kdbench.report.tables.cells import KEPT, Strip, strips
from kdbench.report.tables.tables import Table

_LONG_WORD = 24  # a word above this is broken before a column goes
_GAP = 2  # blanks between two columns in the terminal: the box's own and one of padding


def plain(text: str) -> str:
    """Text on one line, without characters that a terminal or a browser would act on."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


@lru_cache(maxsize=4096)  # most cells of many tables are alike
def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table as well."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", text)
    # Inside a word an underscore means nothing, and names are easier to read without the backslash.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def code(text: str) -> str:
    """Text as a code span, whatever backticks are in it."""
    text = plain(text)
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}"


def pipe(every: Sequence[Strip]) -> str:
    """A Markdown table."""
    return tabulate(
        [[escape(cell) for cell in row] for row in zip(*(strip.cells for strip in every), strict=True)],
        headers=[escape(strip.header) if strip.header != "#" else "#" for strip in every],
        tablefmt="pipe",
        colalign=["right" if strip.number else "left" for strip in every],
        disable_numparse=True,
    )


def markdown(table: Table, names: Iterable[str] | None = None) -> str:
    """The grid and the notes, without the title."""
    grid = pipe(strips(table, names))
    return "\n".join([grid, "", *(f"- {escape(note)}" for note in table.notes)]).rstrip() + "\n"


class Terminal:
    """A table for `rich`: where the console is too narrow, the columns that matter least are left out."""

    def __init__(self, table: Table, names: Iterable[str] | None = None) -> None:
        self.table = table
        self.names = names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        every = strips(self.table, self.names)
        widths = _fitting(every, options.max_width)
        kept = [strip for strip in every if strip.header in widths]
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        for strip in kept:
            justify: JustifyMethod = "right" if strip.number else "left"
            grid.add_column(strip.header, justify=justify, width=widths[strip.header], overflow="fold")
        for row in zip(*(strip.cells for strip in kept), strict=True):
            grid.add_row(*(Text(plain(cell)) for cell in row))
        yield Text(plain(self.table.title), style="bold")
        yield grid
        for note in self.table.notes:
            yield Text(plain(note), style="red" if note.startswith("failed") else "dim")
        if len(kept) < len(every):
            dropped = [strip.header for strip in every if strip.header not in widths]
            yield Text(f"a wider terminal also shows: {', '.join(dropped)}", style="dim")


def _fitting(every: list[Strip], width: int) -> dict[str, int]:
    """The width of each column that fits, by header. Names are broken between words before the teacher has to go."""
    shown = list(every)

    def excess(widths: Iterable[int]) -> int:
        return sum(widths) + _GAP * (len(shown) - 1) - width

    def drop(below: int) -> bool:
        least = min((c for c in shown if 0 < c.worth < below), key=lambda c: c.worth, default=None)
        if least:
            shown.remove(least)
        return least is not None

    while excess(map(_whole, shown)) > 0 and drop(below=KEPT):
        pass
    while excess(map(_narrow, shown)) > 0 and drop(below=11):
        pass
    widths = {strip.header: _whole(strip) for strip in shown}
    for least in (_narrow, lambda strip: 8):  # at words; where that is not enough, anywhere
        floors = {strip.header: widths[strip.header] if strip.number else least(strip) for strip in shown}
        while excess(widths.values()) > 0:
            room = {header: size for header, size in widths.items() if size > floors[header]}
            if not room:
                break
            widths[max(room, key=lambda header: room[header])] -= 1
    return widths


def _whole(strip: Strip) -> int:
    return max(cell_len(plain(cell)) for cell in [strip.header, *strip.cells])


def _narrow(strip: Strip) -> int:
    """The width at which a number is whole, and names are broken between words only."""
    if strip.number:
        return _whole(strip)
    words = [word for cell in [strip.header, *strip.cells] for word in plain(cell).split()]
    return min(_LONG_WORD, max(map(cell_len, words)))
