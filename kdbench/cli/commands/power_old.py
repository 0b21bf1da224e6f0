"""`kdbench power`: what the seeds of each line can show, and how many a difference would need."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from kdbench.config.settings import BASELINE
from kdbench.errors import UserError, nearest
from kdbench.report import folders, records
from kdbench.report.formats.markdown import plain
from kdbench.report.leaderboard import CSV
from kdbench.report.stats.intervals import Interval
from kdbench.report.stats.power import POWER, detectable, deviation, pooled, seeds_needed_text, size_text, threshold
from kdbench.report.tables.rows import Row
from kdbench.report.tables.tables import Table, tables

DIFFERENCES = (0.5, 1.0)

_LEGEND = f"""\
n: seeds that the line and {BASELINE} both have; sd: of the differences paired by seed, in points
shows: the smallest mean difference whose 95 % interval excludes zero
detects: the smallest true difference that n such seeds show with a power of {100 * POWER:.0f} %
sd is an estimate from these seeds alone; over n = 2 or 3 it may be far off. The last line pools the sd of all lines."""


def show(words: Sequence[str], runs: Path, out: Path | None = None) -> int:
    """Print one grid for each table.

    Args:
        words: `difference=0.5,1`, or nothing.
        runs: the folder of all runs.
        out: a leaderboard whose committed rows are taken instead.

    Returns:
        0, the exit status.

    Raises:
        UserError: a word that means nothing, or no row to be found.
    """
    differences = parse(words)
    rows, messages = _committed(out / CSV) if out else _measured(runs)
    for message in messages:
        print(f"kdbench: {message}", file=sys.stderr)
    found = tables(rows)
    if not found:
        raise UserError(f"there is no result in {out or runs}; make some with: kdbench run")
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=200)
    for table in found:
        console.print(Text(plain(table.title), style="bold"))
        if _compared(table):
            console.print(_grid(table, differences))
        for sentence in missing(table):
            console.print(Text(plain(sentence)))
        console.print()
    if any(map(_compared, found)):
        console.print(Text(_LEGEND, style="dim"))
    return 0


def parse(words: Sequence[str]) -> tuple[float, ...]:
    """The differences asked for, in points; `DIFFERENCES` if none is.

    Raises:
        UserError: another word than `difference=`, or a value that is no number above 0.
    """
    asked: tuple[float, ...] = ()
    for word in words:
        key, equals, value = word.partition("=")
        if key != "difference" or not equals:
            hint = "; did you mean 'difference'?" if nearest(key, ["difference"]) else "; valid: difference=0.5,1."
            raise UserError(f"unknown selection '{key}'{hint} See: kdbench power --help")
        if asked:
            raise UserError("'difference' is given twice; several values go in one comma list (difference=0.5,1)")
        asked = tuple(dict.fromkeys(_difference(text) for text in value.split(",")))
    return asked or DIFFERENCES


def _difference(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"difference takes points of accuracy above 0, such as difference=0.5,1, not '{text}'")
    return value


def _measured(runs: Path) -> tuple[pd.DataFrame, list[str]]:
    found = folders.read_runs(runs)
    return records.frame(found.results), found.messages


def _committed(path: Path) -> tuple[pd.DataFrame, list[str]]:
    if not path.is_file():
        raise UserError(f"there is no {path}; make it with: kdbench leaderboard")
    rows, messages = records.from_csv(path.read_bytes(), str(path))
    return records.canonical(rows), messages


def _interval(line: Row) -> Interval | None:
    """The difference to the baseline, if it has an sd."""
    return line.difference if line.difference and line.difference.n >= 2 else None


def _compared(table: Table) -> bool:
    return any(map(_interval, table.rows))


def missing(table: Table) -> Iterator[str]:
    """A sentence for each line, or for the table, that says why no power can be given."""
    base = next((line for line in table.rows if line.is_baseline and line.accuracy), None)
    if base is not None and len(table.rows) == 1:
        yield f"there is nothing but {BASELINE} here, and so no difference"
        return
    if base is None or len(base.by_seed) < 2:
        have = "no finished run" if base is None else "one seed"
        yield f"{BASELINE} has {have} here; how differences scatter is seen with two seeds or more: kdbench run … seeds=0,1,2"
        return
    for line in table.rows:
        if line is not base and not _interval(line):
            n = line.difference.n if line.difference else 0
            have = "one seed" if n == 1 else "no seed"
            yield f"{line.name} has {have} in common with {BASELINE}; how differences scatter is seen with two or more"


def _grid(table: Table, differences: Sequence[float]) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("Method")
    for header in ("n", "sd", "shows", "detects", *(f"seeds for {size:g}" for size in differences)):
        grid.add_column(header, justify="right", no_wrap=True)
    for line in table.rows:
        if (interval := _interval(line)) and (sd := deviation(interval)) is not None:
            grid.add_row(Text(plain(line.name)), *_cells(sd, interval.n, differences))
    intervals = [interval for line in table.rows if (interval := _interval(line))]
    sd = pooled(intervals)
    ns = {interval.n for interval in intervals}
    if sd is not None and len(intervals) > 1:
        grid.add_section()
        grid.add_row("all lines", *_cells(sd, ns.pop() if len(ns) == 1 else None, differences))
    return grid


def _cells(sd: float, n: int | None, differences: Sequence[float]) -> list[str]:
    """n, sd, threshold, detectable difference, seeds for each difference; "–" for what needs an n that lines share."""
    given = (None, None) if n is None else (threshold(sd, n), detectable(sd, n))
    shown = [size_text(value) if value is not None else "–" for value in given]
    return [str(n or "–"), f"{sd:.2f}", *shown, *(seeds_needed_text(sd, size) for size in differences)]
