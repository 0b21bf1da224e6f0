"""The differences from the baseline that each line's seeds can show, now and with more seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kdbench.config import BASELINE
from kdbench.errors import UserError
from kdbench.report import folders, records
from kdbench.report.leaderboard import CSV
from kdbench.report.stats.intervals import Interval
from kdbench.report.stats.power import detectable, deviation, pooled, seeds_needed, threshold
from kdbench.report.tables.rows import Row
from kdbench.report.tables.tables import Table, tables
from kdbench.words import printable

DIFFERENCES = (0.5, 1.0)
"""Differences, in points, for which the number of seeds is computed unless others are given."""

MOST = 1000
"""The largest number of seeds that is tried."""


@dataclass(frozen=True)
class LinePower:
    """The differences that the seeds of a line can detect. Points are percentage points of accuracy on the test set.

    Attributes:
        line: the method, and its teacher; "all lines" for the sd pooled over a table.
        n: seeds that the line and the baseline have in common; None for pooled lines that do not agree on it.
        sd: sample standard deviation (ddof 1) of the differences paired by seed, in points.
        shows: the smallest mean difference whose 95 % interval excludes zero, in points; None without n.
        detects: the smallest true difference that n seeds show with a power of 80 %, in points; None without n.
        seeds_needed: number of seeds needed to detect a difference, by difference in points; None where `MOST` are too few.
    """

    line: str
    n: int | None
    sd: float
    shows: float | None
    detects: float | None
    seeds_needed: Mapping[float, int | None]


@dataclass(frozen=True)
class TablePower:
    """The differences that the seeds of a table can detect.

    Attributes:
        title: dataset, student, recipe and protocol.
        lines: the lines that have at least two seeds in common with the baseline.
        pooled: all of these together; None for fewer than two.
        reasons: why the other lines, or the whole table, have no power, a sentence each.
    """

    title: str
    lines: tuple[LinePower, ...]
    pooled: LinePower | None
    reasons: tuple[str, ...]


def read(
    runs: Path,
    board: Path | None = None,
    differences: Sequence[float] = DIFFERENCES,
    baseline: str = BASELINE,
) -> tuple[list[TablePower], list[str]]:
    """The power of each table, and a sentence for each result that cannot be used.

    Args:
        runs: the folder of all runs.
        board: a leaderboard whose committed rows are used instead of the runs.
        differences: differences in points, for `LinePower.seeds_needed`.
        baseline: the method that differences are taken from.

    Raises:
        UserError: there is no result, no such leaderboard, or no table with the baseline.
    """
    rows, messages = _committed(board / CSV) if board else _measured(runs)
    powers = [of_table(table, differences) for table in tables(rows, baseline)]
    if not powers:
        raise UserError(f"there are no results in {board or runs}; create some with: kdbench run")
    return powers, messages


def of_table(table: Table, differences: Sequence[float] = DIFFERENCES) -> TablePower:
    """The power of one table; `differences` as in `read`."""
    intervals = [(row.name, interval) for row in table.rows if (interval := _interval(row))]
    lines = [
        _power(name, sd, interval.n, differences)
        for name, interval in intervals
        if (sd := deviation(interval)) is not None
    ]
    every = None
    if len(lines) > 1 and (sd := pooled(interval for _, interval in intervals)) is not None:
        counts = {line.n for line in lines}
        every = _power("all lines", sd, counts.pop() if len(counts) == 1 else None, differences)
    return TablePower(printable(table.title), tuple(lines), every, tuple(_reasons(table)))


def _power(line: str, sd: float, n: int | None, differences: Sequence[float]) -> LinePower:
    shows, detects = (None, None) if n is None else (threshold(sd, n), detectable(sd, n))
    needed = {difference: seeds_needed(sd, difference, most=MOST) for difference in differences}
    return LinePower(printable(line), n, sd, shows, detects, needed)


def _measured(runs: Path) -> tuple[pd.DataFrame, list[str]]:
    reading = folders.read_runs(runs)
    return records.frame(reading.results), reading.messages


def _committed(path: Path) -> tuple[pd.DataFrame, list[str]]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; create it with: kdbench leaderboard")
    rows, messages = records.from_csv(path.read_bytes(), str(path))
    return records.canonical(rows), messages


def _interval(row: Row) -> Interval | None:
    """The difference from the baseline, if it has an sd."""
    return row.difference if row.difference and row.difference.n >= 2 else None


def _reasons(table: Table) -> Iterator[str]:
    base = next((row for row in table.rows if row.has_defaults_of(table.baseline) and row.accuracy), None)
    if base is not None and len(table.rows) == 1:
        yield f"this table has only {table.baseline}, so there is no difference to compute"
        return
    if base is None or len(base.by_seed) < 2:
        count = "no finished run" if base is None else "only one seed"
        yield f"{table.baseline} has {count} here; the sd of differences needs at least two seeds: kdbench run … seeds=0,1,2"
        return
    for row in table.rows:
        if row is not base and not _interval(row):
            count = "only one seed" if row.difference and row.difference.n == 1 else "no seed"
            yield (
                f"{printable(row.name)} has {count} in common with {table.baseline}; the sd of differences needs at least two"
            )
