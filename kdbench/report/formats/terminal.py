"""A table for the terminal, by `rich`, in the width that there is."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from kdbench.report.tables.cells import KEPT, Cells, cells
from kdbench.report.tables.sections import Section
from kdbench.report.tables.tables import Table
from kdbench.words import printable

_LONG_WORD = 24  # a word above this is broken before a column goes
_GAP = 2  # blanks between two columns: the box's own and one of padding


class Terminal:
    """A table for `rich`. Where the console is too narrow, the columns that matter least are left out."""

    def __init__(self, table: Table, names: Iterable[str] | None = None) -> None:
        self.table = table
        self.names = names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = cells(self.table, self.names)
        widths = _widths(columns, options.max_width)
        fitting = [column for column in columns if column.header in widths]
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        for column in fitting:
            justify: JustifyMethod = "right" if column.number else "left"
            grid.add_column(column.header, justify=justify, width=widths[column.header], overflow="fold")
        for row in zip(*(column.texts for column in fitting), strict=True):
            grid.add_row(*(Text(printable(cell)) for cell in row))
        yield Text(printable(self.table.title), style="bold")
        yield grid
        for note in self.table.notes:
            yield Text(printable(note), style="red" if note.startswith("failed") else "dim")
        if len(fitting) < len(columns):
            dropped = [column.header for column in columns if column.header not in widths]
            yield Text(f"a wider terminal also shows: {', '.join(dropped)}", style="dim")


class TerminalSection:
    """A section for `rich`: its heading, its table, and its notes."""

    def __init__(self, section: Section) -> None:
        self.section = section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        section = self.section
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        for column in section.columns:
            grid.add_column(printable(column.header), justify="right" if column.number else "left", overflow="fold")
        for place, row in enumerate(zip(*(column.texts for column in section.columns), strict=True)):
            strong = [place in column.strong for column in section.columns]
            grid.add_row(*(Text(printable(text), style="bold" * bold) for text, bold in zip(row, strong, strict=True)))
        yield Text(printable(section.heading), style="bold")
        yield grid
        for sentence in ("".join(span.text for span in section.intro), *section.notes):
            yield Text(printable(sentence), style="dim")


def _widths(columns: list[Cells], width: int) -> dict[str, int]:
    """The width of each column that fits, by header. Names are broken between words before the teacher is left out."""
    shown = list(columns)

    def excess(widths: Iterable[int]) -> int:
        return sum(widths) + _GAP * (len(shown) - 1) - width

    def drop(below: int) -> bool:
        least = min((c for c in shown if 0 < c.worth < below), key=lambda c: c.worth, default=None)
        if least:
            shown.remove(least)
        return least is not None

    while excess(map(_full_width, shown)) > 0 and drop(below=KEPT):
        pass
    while excess(map(_narrow_width, shown)) > 0 and drop(below=11):
        pass
    widths = {column.header: _full_width(column) for column in shown}
    for least in (_narrow_width, lambda column: 8):  # at words; where that is not enough, anywhere
        floors = {column.header: widths[column.header] if column.number else least(column) for column in shown}
        while excess(widths.values()) > 0:
            room = {header: size for header, size in widths.items() if size > floors[header]}
            if not room:
                break
            widths[max(room, key=lambda header: room[header])] -= 1
    return widths


def _full_width(column: Cells) -> int:
    return max(cell_len(printable(cell)) for cell in [column.header, *column.texts])


def _narrow_width(column: Cells) -> int:
    """The width at which a number is whole, and names are broken between words only."""
    if column.number:
        return _full_width(column)
    words = [word for cell in [column.header, *column.texts] for word in printable(cell).split()]
    return min(_LONG_WORD, max(map(cell_len, words)))
