"""The leaderboard: committed rows in `results.csv`, and the files with tables, which follow from them and from nothing else."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdbench.errors import UserError
from kdbench.report import folders, records
from kdbench.report.formats import latex, readme
from kdbench.report.formats.tidy import tidy
from kdbench.report.tables import overall, published
from kdbench.report.tables.columns import find
from kdbench.report.tables.sections import Section, Span
from kdbench.report.tables.tables import Table, tables

CSV = "results.csv"
README = "README.md"
TIDY, LATEX = "tables.csv", "tables.tex"
PAGE = "index.html"


@dataclass(frozen=True)
class Outcome:
    """What `regenerate` did.

    Attributes:
        tables: all tables, in the order of the README.
        runs: rows in results.csv now.
        read: how many of them were read from run folders this time; what has not changed since is not.
        open: runs in the folders that have no result yet.
        messages: what was skipped or looks wrong, a sentence each.
        changed: the files that were written; others were right already.
        sha256: of results.csv.
    """

    tables: list[Table]
    runs: int
    read: int
    open: int
    messages: list[str]
    changed: list[Path]
    sha256: str


@contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """The collector would look through the cells of all rows again and again, a fifth of the time, and find nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_nothing_is_garbage()
def regenerate(runs: Path, out: Path, columns: Sequence[str] | None = None, html: bool = False) -> Outcome:
    """Merge the run folders under `runs` into `out`/results.csv and write all other files from it.

    Args:
        columns: that the tables show (kdbench.report.columns); None for the default set.
        html: write index.html too. It has the curves of the run folders, so that the rows alone do not give it, and
            `check` leaves it alone.

    Raises:
        UserError: results.csv is there and no file of rows, published.csv is damaged, or a package for the page is
            missing; nothing is written then.
    """
    if html:
        from kdbench.report.formats.page import build  # whose packages are an extra
    path = out / CSV
    before = path.read_bytes() if path.is_file() else b""
    known = folders.known(runs, before)
    reading = folders.read_runs(runs, known)
    committed, damaged = records.from_csv(before, str(path)) if before else (records.frame([]), [])
    fresh = records.frame(reading.results)
    merged, lost = records.merge(committed, fresh)
    found = tables(merged)
    content = records.to_csv(merged)
    sections = _sections(found, out)
    files = {CSV: content, **_generated(found, len(merged), content, columns, sections)}
    if damaged:
        kept = path.with_name(f"results.damaged-{hashlib.sha256(before).hexdigest()[:8]}.csv")
        records.write(kept, before)
        damaged = [f"{sentence}; it is left out now" for sentence in damaged]
        damaged.insert(0, f"{path} was damaged; the file as it was is in {kept}")
    if html:
        files[PAGE] = build.page(found, runs, content, columns, sections)
    changed = [out / name for name, text in files.items() if records.write(out / name, text)]
    folders.remember(runs, content, reading.stamps)
    messages = [*reading.messages, *damaged, *lost]
    sha256 = hashlib.sha256(content).hexdigest()
    return Outcome(
        found, len(merged), len(fresh), reading.open, messages + _unmeasured(found, columns), changed, sha256
    )


def first(messages: list[str], most: int = 10) -> list[str]:
    """What is printed of many sentences: the first ones, and how many more there are."""
    rest = len(messages) - most
    return messages[:most] + [f"and {rest} more of this kind"] * (rest > 0)


def check(out: Path, columns: Sequence[str] | None = None) -> list[str]:
    """A sentence for each file in `out` that is not what the committed rows give; none if all is well.

    Args:
        columns: that the tables must show; None for those that the README says it was made with.

    Raises:
        UserError: there is no results.csv, or it is no file of rows, or published.csv is damaged.
    """
    path, page = out / CSV, out / README
    if not path.is_file():
        raise UserError(f"there is no {path}; make it with: kdbench leaderboard")
    rows, wrong = records.from_csv(path.read_bytes(), str(path))
    if wrong:
        return wrong
    committed = records.canonical(rows)
    content = records.to_csv(committed)
    if path.read_bytes() != content:
        wrong.append(f"{path} is not in the form that kdbench writes")
    if columns is None and page.is_file():
        columns = readme.made_with(page.read_text(errors="replace"))
    found = tables(committed)
    for name, text in _generated(found, len(committed), content, columns, _sections(found, out)).items():
        file = out / name
        if not file.is_file():
            wrong.append(f"{file} is missing")
        elif file.read_bytes() != text:
            wrong.append(f"{file} is not what the rows in {CSV} give")
    return wrong


def _unmeasured(found: list[Table], columns: Sequence[str] | None) -> list[str]:
    """A sentence if columns were asked for that no run has."""
    lines = [line for table in found for line in table.lines]
    asked = {name: find(name) for name in columns or ()}
    empty = [n for n, column in asked.items() if not any(column.value(line) or column.never(line) for line in lines)]
    return [f"no run has measured {', '.join(empty)}"] if empty and lines else []


def _sections(found: list[Table], out: Path) -> list[Section]:
    """What stands behind the tables."""
    path = published.source(out)
    file = Span(path.name, "file") if path.parent == out else Span("the file that comes with kdbench")
    pairs = published.compare(found, published.read(path))
    shared = overall.overview(found)
    return ([overall.section(shared)] if shared else []) + [published.section(pairs, file)]


def _generated(
    found: list[Table], runs: int, content: bytes, columns: Sequence[str] | None, sections: list[Section]
) -> dict[str, bytes]:
    """All files that follow from the rows, by name."""
    return {
        README: readme.page(found, runs, content, columns, sections),
        TIDY: tidy(found, columns).encode(),
        LATEX: latex.document(found, columns, sections).encode(),
    }
