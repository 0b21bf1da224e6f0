"""The leaderboard: committed rows in `results.csv`, and the files with tables, which follow from them and from nothing else."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.errors import UserError
from kdbench.report import curves, folders, purposes, records
from kdbench.report.foreign import merging, schema
from kdbench.report.foreign.source import Source
from kdbench.report.formats import grid_files, latex, readme, tidy_csv
from kdbench.report.request import Request
from kdbench.report.tables import axes, grids, overall, published, revisions
from kdbench.report.tables.columns import find
from kdbench.report.tables.sections import Section, Span
from kdbench.report.tables.tables import Table
from kdbench.report.tables.tables import tables as make_tables
from kdbench.store.folder import EPOCHS

if TYPE_CHECKING:
    import pandas as pd

CSV = "results.csv"
README = "README.md"
TIDY, LATEX = "tables.csv", "tables.tex"
PAGE = "index.html"
DEFAULT = Request()


@dataclass(frozen=True)
class Outcome:
    """The result of `regenerate`.

    Attributes:
        tables: all tables, in the order of the README.
        runs: number of records in results.csv now.
        read: number of them that were read from run folders this time; unchanged ones are not read again.
        open: number of runs in the folders that have no result yet.
        messages: a sentence for everything that was skipped or looks wrong.
        added: number of rows that were merged from another leaderboard.
        present: number of rows of that leaderboard that were here already.
        changed: the files that were written; the others were up to date.
        sha256: checksum of results.csv.
    """

    tables: list[Table]
    runs: int
    read: int
    open: int
    messages: list[str]
    changed: list[Path]
    sha256: str
    added: int = 0
    present: int = 0


@contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """The collector would search the cells of all records again and again, in a fifth of the time, and find nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_nothing_is_garbage()
def regenerate(
    runs: Path, out: Path, request: Request = DEFAULT, html: bool = False, foreign: Source | None = None
) -> Outcome:
    """Merge the run folders under `runs` into `out`/results.csv and write all other files from it.

    Args:
        request: what the tables show. With axes, a grid is written too, and the tables keep what they show. Grids that exist
            are kept up to date.
        html: also write index.html. It has the curves of the run folders, which are not in the records, so `check`
            ignores it.
        foreign: rows of somebody else to merge.

    Raises:
        UserError: results.csv exists and is not a results file, published.csv is damaged, no table has the baseline, a
            package for the page is missing, or the rows of somebody else cannot be merged; nothing is written then.
    """
    if html:
        from kdbench.report.formats.page import build  # whose packages are an extra
    path = out / CSV
    before = path.read_bytes() if path.is_file() else b""
    reading = folders.read_runs(runs, folders.unchanged(runs, before))
    committed, damaged = records.from_csv(before, str(path)) if before else (records.frame([]), [])
    fresh = records.frame(reading.results)
    merged, lost = records.merge(committed, fresh)
    others = merging.merge(merged, schema.rows(foreign), foreign.name) if foreign else None
    merged = purposes.filled(others.records if others else merged)
    asked = _asked(out, request) if request.axes else request
    tables = make_tables(merged, asked.baseline)
    content = records.to_csv(merged)
    sections = _sections(tables, out)
    files = {
        CSV: content,
        **_generated(tables, len(merged), content, asked, sections),
        **_grids(tables, out, request.axes),
    }
    if damaged:
        kept = path.with_name(f"results.damaged-{hashlib.sha256(before).hexdigest()[:8]}.csv")
        records.write(kept, before)
        damaged = [f"{sentence}; it is left out now" for sentence in damaged]
        damaged.insert(0, f"{path} was damaged; the original is kept in {kept}")
    if html:
        as_grids = [
            section
            for by in _axes(out, request.axes)
            for grid in grids.grids(tables, by)
            for section in grids.sections(grid)
        ]
        files[PAGE] = build.page(
            tables, lambda run: curves.read(runs / run / EPOCHS), content, asked.columns, [*as_grids, *sections]
        )
    changed = [out / name for name, text in files.items() if records.write(out / name, text)]
    folders.remember(runs, content, reading.stamps)
    messages = [*reading.messages, *damaged, *lost, *(others.messages if others else [])]
    return Outcome(
        tables=tables,
        runs=len(merged),
        read=len(fresh),
        open=reading.open,
        messages=messages + _unmeasured(tables, asked.columns),
        changed=changed,
        sha256=hashlib.sha256(content).hexdigest(),
        added=others.added if others else 0,
        present=others.present if others else 0,
    )


def rewrite(out: Path, rows: pd.DataFrame) -> None:
    """Write changed records to `out`/results.csv, and all files that follow from it with what they show now.

    Args:
        rows: all records, in any order.
    """
    rows = purposes.filled(records.canonical(rows))
    content, asked = records.to_csv(rows), _as_before(out)
    tables = make_tables(rows, asked.baseline)
    files = {CSV: content, **_generated(tables, len(rows), content, asked, _sections(tables, out))}
    for name, text in {**files, **_grids(tables, out, None)}.items():
        records.write(out / name, text)


def first(messages: list[str], most: int = 10) -> list[str]:
    """The first of many sentences, and the number of the others."""
    rest = len(messages) - most
    return messages[:most] + [f"and {rest} more of this kind"] * (rest > 0)


def check(out: Path, request: Request = DEFAULT) -> list[str]:
    """A sentence for each file in `out` that does not follow from the committed records; none if all do.

    Args:
        request: what the tables must show; the default one stands for that which the README records.

    Raises:
        UserError: there is no results.csv, or it is not a results file, or published.csv is damaged.
    """
    path = out / CSV
    if not path.is_file():
        raise UserError(f"{path} does not exist; create it with: kdbench leaderboard")
    rows, wrong = records.from_csv(path.read_bytes(), str(path))
    if wrong:
        return wrong
    committed = purposes.filled(records.canonical(rows))
    content = records.to_csv(committed)
    if path.read_bytes() != content:
        wrong.append(f"{path} is not in the form that kdbench writes")
    asked = _asked(out, request) if request.axes or not request.words() else request
    tables = make_tables(committed, asked.baseline)
    files = _generated(tables, len(committed), content, asked, _sections(tables, out))
    for name, text in {**files, **_grids(tables, out, request.axes)}.items():
        file = out / name
        if not file.is_file():
            wrong.append(f"{file} is missing")
        elif file.read_bytes() != text:
            wrong.append(f"{file} does not follow from the rows in {CSV}")
    return wrong


def _asked(out: Path, request: Request) -> Request:
    """The request that the README was made with; with the baseline that is asked for next to a grid."""
    before = _as_before(out)
    return replace(before, baseline=request.baseline or before.baseline) if request.axes else before


def _as_before(out: Path) -> Request:
    """The request that the README was made with; the default one without a README."""
    page = out / README
    return readme.made_with(page.read_text(encoding="utf-8", errors="replace")) if page.is_file() else Request()


def _grids(tables: list[Table], out: Path, asked: axes.Axes | None) -> dict[str, bytes]:
    """The files of the grid that is asked for, and of those that exist."""
    by_name: dict[str, bytes] = {}
    for by in _axes(out, asked):
        by_name |= grid_files.files(grids.grids(tables, by), by)
    return by_name


def _axes(out: Path, asked: axes.Axes | None) -> list[axes.Axes]:
    return [by for by in axes.EVERY if by == asked or (out / f"{by.name}.md").is_file()]


def _unmeasured(tables: list[Table], columns: Sequence[str] | None) -> list[str]:
    """A sentence if columns were asked for that no run has."""
    rows = [row for table in tables for row in table.rows]
    asked = {name: find(name) for name in columns or ()}
    empty = [n for n, column in asked.items() if not any(column.value(row) or column.never(row) for row in rows)]
    return [f"no run has measured {', '.join(empty)}"] if empty and rows else []


def _sections(tables: list[Table], out: Path) -> list[Section]:
    """The sections after the tables."""
    path = published.source(out)
    file = Span(path.name, "file") if path.parent == out else Span("the file that comes with kdbench")
    over = overall.aggregate(tables)
    changed = revisions.changed_in_form(record for table in tables for row in table.rows for record in row.runs)
    return [
        *([overall.section(over)] if over else []),
        published.section(published.compare(tables, published.read(path)), file),
        *([Section("Versions of method files", (Span(" ".join(changed)),))] if changed else []),
    ]


def _generated(
    tables: list[Table], runs: int, content: bytes, request: Request, sections: list[Section]
) -> dict[str, bytes]:
    """All files that follow from the records, by name."""
    return {
        README: readme.page(tables, runs, content, request, sections),
        TIDY: tidy_csv.document(tables, request.columns).encode(),
        LATEX: latex.document(tables, request.columns, sections).encode(),
    }
