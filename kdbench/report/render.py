"""A table as Markdown and for the terminal: the same cells, the same notes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table as Grid
from rich.text import Text
from tabulate import tabulate

from kdbench.report.lines import Line
from kdbench.report.stats import Interval
from kdbench.report.tables import Table
from kdbench.settings import BASELINE

_NONE = "–"
_KEPT = 8  # columns worth this much are what a table is about
_LONG_WORD = 24  # a word above this is broken before a column goes
_GAP = 2  # blanks between two columns in the terminal: the box's own and one of padding


@dataclass(frozen=True)
class Column:
    """A column with its text cells.

    Attributes:
        number: aligned to the right and never broken.
        worth: where there is no room, the column worth least goes first; 0 never goes.
    """

    header: str
    cells: list[str]
    number: bool = True
    worth: int = 0


def columns(table: Table) -> list[Column]:
    """The columns that have anything to say."""
    lines = table.lines
    teachers = [line.teacher or _NONE for line in lines]
    best = [_fixed(line.best_val, 2) for line in lines]
    every = [
        Column("#", [str(line.rank or _NONE) for line in lines]),
        Column("Method", [" ".join(filter(None, [line.method, line.marks])) for line in lines], number=False),
        Column("Teacher", teachers, number=False, worth=_KEPT),
        Column("n", [_seeds(line) for line in lines]),
        Column("Accuracy %", [_interval(line.accuracy, ".2f") if line.accuracy else "failed" for line in lines]),
        Column(f"Δ {BASELINE}", [_interval(line.difference, "+.2f") for line in lines], worth=_KEPT + 1),
        Column("Best val %", best, worth=7),
        Column("Best test %", [_fixed(line.best_test, 2) for line in lines], worth=10),
        Column("Images", [_compact(line.images) for line in lines], worth=4),
        Column("Train s", [_seconds(line.seconds) for line in lines], worth=6),
        Column("Images/s", [_compact(line.speed) for line in lines], worth=5),
    ]
    return [column for column in every if not column.worth or set(column.cells) != {_NONE}]


def _seeds(line: Line) -> str:
    n = line.accuracy.n if line.accuracy else 0
    return f"{n}, {len(line.failed)} failed" if line.failed else str(n)


def _interval(interval: Interval | None, form: str) -> str:
    if interval is None:
        return _NONE
    mean = format(round(interval.mean, 2) + 0.0, form)  # + 0.0: no minus before a zero
    return mean if interval.half_width is None else f"{mean} ± {interval.half_width:.2f}"


def _fixed(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _seconds(value: float | None) -> str:
    return _fixed(value, 1 if value is not None and value < 100 else 0)


def _compact(value: float | None) -> str:
    """Three digits and a prefix: 15.0M."""
    if value is None:
        return _NONE
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{sign}" if value >= 99.95 * unit else f"{value / unit:#.3g}{sign}"
    return f"{value:.0f}"


def plain(text: str) -> str:
    """Text on one line, without characters that a terminal or a browser would act on."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table as well."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", text)
    # Inside a word an underscore means nothing, and names are easier to read without the backslash.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def code(text: str) -> str:
    """Text as a code span, whatever backticks are in it."""
    text = plain(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def markdown(table: Table) -> str:
    """The grid and the notes, without the title."""
    shown = columns(table)
    grid = tabulate(
        [[escape(cell) for cell in row] for row in zip(*(column.cells for column in shown), strict=True)],
        headers=[column.header for column in shown],
        tablefmt="pipe",
        colalign=["right" if column.number else "left" for column in shown],
        disable_numparse=True,
    )
    return "\n".join([grid, "", *(f"- {escape(note)}" for note in table.notes)]).rstrip() + "\n"


class Terminal:
    """A table for `rich`: where the console is too narrow, the columns that matter least are left out."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        every = columns(self.table)
        widths = _fitting(every, options.max_width)
        shown = [column for column in every if column.header in widths]
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        for column in shown:
            justify: JustifyMethod = "right" if column.number else "left"
            grid.add_column(column.header, justify=justify, width=widths[column.header], overflow="fold")
        for row in zip(*(column.cells for column in shown), strict=True):
            grid.add_row(*(Text(plain(cell)) for cell in row))
        yield Text(plain(self.table.title), style="bold")
        yield grid
        for note in self.table.notes:
            yield Text(plain(note), style="red" if note.startswith("failed") else "dim")
        if len(shown) < len(every):
            dropped = [column.header for column in every if column.header not in widths]
            yield Text(f"a wider terminal also shows: {', '.join(dropped)}", style="dim")


def _fitting(every: list[Column], width: int) -> dict[str, int]:
    """The width of each column that fits, by header. Names are broken between words before the teacher has to go."""
    shown = list(every)

    def excess(widths: Iterable[int]) -> int:
        return sum(widths) + _GAP * (len(shown) - 1) - width

    def drop(below: int) -> bool:
        least = min((c for c in shown if 0 < c.worth < below), key=lambda c: c.worth, default=None)
        if least:
            shown.remove(least)
        return least is not None

    while excess(map(_whole, shown)) > 0 and drop(below=_KEPT):
        pass
    while excess(map(_narrow, shown)) > 0 and drop(below=11):
        pass
    widths = {column.header: _whole(column) for column in shown}
    for least in (_narrow, lambda column: 8):  # at words; where that is not enough, anywhere
        floors = {column.header: widths[column.header] if column.number else least(column) for column in shown}
        while excess(widths.values()) > 0:
            room = {header: size for header, size in widths.items() if size > floors[header]}
            if not room:
                break
            widths[max(room, key=lambda header: room[header])] -= 1
    return widths


def _whole(column: Column) -> int:
    return max(cell_len(plain(cell)) for cell in [column.header, *column.cells])


def _narrow(column: Column) -> int:
    """The width at which a number is whole, and names are broken between words only."""
    if column.number:
        return _whole(column)
    words = [word for cell in [column.header, *column.cells] for word in plain(cell).split()]
    return min(_LONG_WORD, max(map(cell_len, words)))
