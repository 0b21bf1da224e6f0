"""Grids of accuracies, as in papers: methods against students, datasets or both, from tables of one recipe."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from kdbench.config import BASELINE
from kdbench.report.stats.significance import ALPHA, best
from kdbench.report.tables import origins
from kdbench.report.tables.axes import BOTH, Axes
from kdbench.report.tables.cells import Cells
from kdbench.report.tables.columns import FAILED, NONE
from kdbench.report.tables.notes import OTHER_DATA, UNCOMMITTED, stamps
from kdbench.report.tables.rows import Row
from kdbench.report.tables.sections import Section, Span
from kdbench.report.tables.tables import Table

TEACHER = "Teacher"
_SIGNS = (UNCOMMITTED, OTHER_DATA, *origins.SIGNS)
"""The marks of rows that cells repeat; the notes of the tables explain them."""


@dataclass(frozen=True)
class Grid:
    """The accuracies of methods in several settings, which are the students of one dataset, the datasets of one student, or both.

    Attributes:
        title: the dataset, student or recipe that all cells have in common.
        tables: the table of each setting, in the order of the settings.
        notes: sentences that belong below.
    """

    axes: Axes
    title: str
    recipe: str
    tables: Mapping[str, Table]
    notes: tuple[str, ...]

    @cached_property
    def teachers(self) -> dict[str, str]:
        """The teacher of each setting, with its accuracy: the one of most rows; "" without one."""
        return {setting: _teacher(table) for setting, table in self.tables.items()}

    @cached_property
    def rows(self) -> dict[str, dict[str, Row]]:
        """The row of each method in each setting: the baseline first, the others by name."""
        by_method: dict[str, dict[str, Row]] = defaultdict(dict)
        for setting, table in self.tables.items():
            count = Counter(row.method for row in table.rows)
            for row in table.rows:
                named = count[row.method] == 1 or row.teacher in ("", self.teachers[setting])
                by_method[row.method if named else row.name][setting] = row
        return dict(sorted(by_method.items(), key=lambda pair: (pair[0] != BASELINE, pair[0])))

    @cached_property
    def best(self) -> dict[str, Row | None]:
        """The row of each setting that is significantly better than every other one of its table."""
        places = {setting: best([row.by_seed for row in table.rows]) for setting, table in self.tables.items()}
        return {
            setting: None if place is None else self.tables[setting].rows[place] for setting, place in places.items()
        }

    @property
    def baseline(self) -> str:
        """The method that differences are taken from."""
        return next((table.baseline for table in self.tables.values()), BASELINE)

    @cached_property
    def usual_n(self) -> int:
        """The number of seeds of most cells; of equally many, the larger one."""
        counts = Counter(row.accuracy.n for cells in self.rows.values() for row in cells.values() if row.accuracy)
        return max(counts, key=lambda n: (counts[n], n), default=0)


def grids(tables: Iterable[Table], by: Axes) -> list[Grid]:
    """The grids of all tables but those of teachers, one for each recipe and each dataset or student that is not on an axis."""
    groups: dict[tuple[str, str], dict[str, list[Table]]] = defaultdict(lambda: defaultdict(list))
    for table in tables:
        if table.is_of_teachers:
            continue
        if by.setting == BOTH:
            groups[f"recipe {table.recipe}", table.recipe][f"{table.dataset} {table.student}"].append(table)
        elif by.setting == "student":  # all students of one protocol share everything else
            groups[table.dataset, table.protocol][table.student].append(table)
        else:  # a protocol holds the dataset, so that the recipe with its overrides has to do
            groups[table.student, table.recipe][table.dataset].append(table)
    return [_grid(by, *group) for group in sorted(groups.items())]


def _grid(by: Axes, place: tuple[str, str], by_setting: Mapping[str, Sequence[Table]]) -> Grid:
    chosen = {setting: max(tables, key=_size) for setting, tables in sorted(by_setting.items())}
    recipe = " or ".join(sorted({table.recipe for table in chosen.values() if table.recipe}))
    if by.setting == "student":
        recipe = ", ".join(filter(None, [recipe, f"protocol {place[1]}"]))
    else:
        recipe = ", ".join(filter(None, [recipe, *(f"protocol {t.protocol} for {name}" for name, t in chosen.items())]))
    others = [
        f"{setting}: left out, because of another protocol with fewer runs: {', '.join(rest)}"
        for setting, tables in sorted(by_setting.items())
        if (rest := sorted(table.protocol for table in tables if table is not chosen[setting]))
    ]
    return Grid(by, place[0], recipe, chosen, tuple(others))


def _size(table: Table) -> tuple[int, str]:
    return sum(len(row.finished) for row in table.rows), table.protocol


def _teacher(table: Table) -> str:
    taught = [row for row in table.rows if row.teacher and row.accuracy]
    # Controls such as an untrained teacher, or one of the student's own architecture, take another one on purpose.
    usual = [row for row in taught if not any(_names_a_teacher(record.get("control", "")) for record in row.runs)]
    count = Counter(row.teacher for row in usual or taught)
    return max(count, key=lambda teacher: (count[teacher], teacher), default="")


def _names_a_teacher(control: str) -> bool:
    try:
        return "teacher" in json.loads(control or "{}")
    except (ValueError, TypeError, RecursionError):
        return False


def sections(grid: Grid) -> list[Section]:
    """A grid of accuracies, and that of the differences from the baseline where a table has some."""
    return [section(grid), *differences(grid)]


def differences(grid: Grid) -> list[Section]:
    """The differences from the baseline as a section; none without any."""
    settings = list(grid.tables)
    rows = {name: cells for name, cells in grid.rows.items() if any(row.difference for row in cells.values())}
    if not rows:
        return []

    def cells(header: str, at: Sequence[Row | None]) -> Cells:
        strong = frozenset(i for i, row in enumerate(at) if row and row.p is not None and row.p <= ALPHA)
        return Cells(header, [_difference(grid, row) for row in at], strong=strong)

    if grid.axes.rows == "method":
        columns = [Cells("Method", list(rows), number=False)]
        columns += [cells(setting, [row.get(setting) for row in rows.values()]) for setting in settings]
    else:
        columns = [Cells(_named(grid.axes.rows), settings, number=False)]
        columns += [cells(name, [row.get(setting) for setting in settings]) for name, row in rows.items()]
    bold = f" Bold: p ≤ {ALPHA:g}, Holm-corrected over its table." if any(column.strong for column in columns) else ""
    intro = (
        f"Differences in accuracy from {grid.baseline}, paired by seed, in points: mean ± half-width of the 95 % t interval over "
        f"n = {grid.usual_n} seeds, unless a cell has another n.{bold}"
    )
    heading = f"{grid.axes.title}, differences from {grid.baseline}: {grid.title}"
    return [Section(heading, (Span(intro),), tuple(columns), is_wide=True)]


def _difference(grid: Grid, row: Row | None) -> str:
    if row is None or row.difference is None:
        return FAILED if row and row.accuracy is None else NONE
    n, mean, half = row.difference
    spread = "" if half is None else f" ± {half:.2f}"
    return f"{round(mean, 2) + 0.0:+.2f}{spread}" + (f" (n = {n})" if n != grid.usual_n else "")  # no minus before 0


def _named(axis: str) -> str:
    return axis.capitalize().replace(",", " and ")


def section(grid: Grid) -> Section:
    """A grid as a section: its title, what holds of all cells, and the cells."""
    methods, settings = list(grid.rows), list(grid.tables)
    if grid.axes.rows == "method":
        columns = [Cells("Method", [TEACHER, *methods] if _taught(grid) else methods, number=False)]
        columns += [_of_setting(grid, setting, methods) for setting in settings]
    else:
        columns = [Cells(_named(grid.axes.rows), settings, number=False)]
        if _taught(grid):
            columns.append(Cells(TEACHER, [grid.teachers[setting] or NONE for setting in settings], number=False))
        columns += [_of_method(grid, method, settings) for method in methods]
    heading = f"{grid.axes.title}: {grid.title}"
    return Section(heading, (Span(_intro(grid)),), tuple(columns), notes=tuple(_notes(grid)), is_wide=True)


def _taught(grid: Grid) -> bool:
    return any(grid.teachers.values())


def _of_setting(grid: Grid, setting: str, methods: Sequence[str]) -> Cells:
    texts = [text(grid, method, setting) for method in methods]
    strong = {i for i, method in enumerate(methods) if is_best(grid, method, setting)}
    if _taught(grid):
        texts.insert(0, grid.teachers[setting] or NONE)
        strong = {i + 1 for i in strong}
    return Cells(setting, texts, strong=frozenset(strong))


def _of_method(grid: Grid, method: str, settings: Sequence[str]) -> Cells:
    strong = frozenset(i for i, setting in enumerate(settings) if is_best(grid, method, setting))
    return Cells(method, [text(grid, method, setting) for setting in settings], strong=strong)


def is_best(grid: Grid, method: str, setting: str) -> bool:
    """True if a cell is significantly better than every other row of its table."""
    row = grid.rows[method].get(setting)
    return row is not None and row is grid.best[setting]


def text(grid: Grid, method: str, setting: str) -> str:
    """The text of a cell: mean ± half-width in percent, with n where it is not that of most cells."""
    row = grid.rows[method].get(setting)
    if row is None:
        return NONE
    signs = "".join(sign for sign in row.marks if sign in _SIGNS)
    if row.accuracy is None:
        return FAILED + signs
    n, mean, half = row.accuracy
    spread = "" if half is None else f" ± {half:.2f}"
    return f"{mean:.2f}{spread}" + (f" (n = {n})" if n != grid.usual_n else "") + signs


def _intro(grid: Grid) -> str:
    bold = (
        " Bold: significantly better than every other row of its table (α = {:g}, Holm-corrected)."
        if any(grid.best.values())
        else ""
    )
    teacher = f" {TEACHER}: its accuracy in parentheses." if _taught(grid) else ""
    return (
        f"All cells are runs of one recipe: {grid.recipe}. Accuracy on the test set after the last epoch, in percent: mean ± "
        f"half-width of the 95 % t interval over n = {grid.usual_n} seeds, unless a cell has another n. "
        f"{NONE}: not run.{teacher}{bold.format(ALPHA)}"
    )


def _notes(grid: Grid) -> list[str]:
    named = [(f"{method} for {setting}", row) for method, rows in grid.rows.items() for setting, row in rows.items()]
    notes = [*stamps([row for _, row in named], [name for name, _ in named]), *grid.notes]
    others = [
        f"{method} for {setting}: {row.teacher}"
        for method, rows in grid.rows.items()
        for setting, row in rows.items()
        if row.teacher not in ("", grid.teachers[setting]) and row.teacher not in method
    ]
    if others:
        notes.append(f"with another teacher: {'; '.join(others)}")
    for sign in _SIGNS:
        notes += [
            f"{sign} {setting}: {note.removeprefix(sign).strip()}"
            for setting, table in grid.tables.items()
            for note in table.notes
            if note.startswith(sign)
        ]
    return notes
