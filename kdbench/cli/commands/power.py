"""`kdbench power`: which differences the seeds can show."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import words as words_
from kdbench.cli import folders
from kdbench.cli.console import console
from kdbench.cli.printing import warn
from kdbench.config import BASELINE
from kdbench.errors import UserError, nearest
from kdbench.report.stats.power import POWER, size_text

if TYPE_CHECKING:
    from rich.table import Table

    from kdbench.report.detectable import LinePower, TablePower

SUMMARY = "show the smallest difference these seeds can detect, and how many seeds a given difference needs"
DETAILS = """\
For each row of each table: the smallest difference from the student trained alone that is significant with its seeds, the
smallest that this number of seeds detects with a power of 80 %, and the number of seeds that a given difference needs.
  kdbench power
  kdbench power baseline=kd
  kdbench power difference=0.3,2 --out leaderboard"""

_KEYS = ("difference", "baseline")

_LEGEND = """\
n: seeds that the row and {baseline} have in common; sd: standard deviation of the differences paired by seed, in points
shows: the smallest mean difference whose 95 % interval excludes zero
detects: the smallest true difference that n such seeds show with a power of {power:.0f} %
sd is estimated from these seeds alone; with n = 2 or 3 it may be far off. The last row pools the sd of all rows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="KEY=VALUE",
        help="difference=D, in points, a comma-separated list (default: 0.5,1); baseline=METHOD (default: ce)",
    )
    rows = parser.add_mutually_exclusive_group()
    folders.add_runs(rows)
    rows.add_argument("--out", type=Path, metavar="DIR", help="use the committed rows of this leaderboard instead")


def run(arguments: argparse.Namespace) -> int:
    differences, baseline = _asked(arguments.words)  # before pandas is imported: a typing error is answered at once
    from kdbench.report import detectable

    tables, messages = detectable.read(
        folders.runs(arguments), arguments.out, differences or detectable.DIFFERENCES, baseline
    )
    for message in messages:
        warn(message)
    out = console()
    for table in tables:
        out.print(table.title, style="bold")
        if table.lines:
            out.print(_grid(table))
        for sentence in table.reasons:
            out.print(sentence)
        out.print()
    if any(table.lines for table in tables):
        out.print(_LEGEND.format(baseline=baseline, power=100 * POWER), style="dim")
    return 0


def _asked(words: Sequence[str]) -> tuple[tuple[float, ...], str]:
    """The differences that the user gives, in points (empty for none), and the baseline.

    Raises:
        UserError: another word than `difference=` or `baseline=`, or a difference that is not a number above 0.
    """
    parsed = words_.parse(words, _KEYS, _unknown_key, single=["baseline"])
    for word in (*parsed.bare, *parsed.bindings):
        raise _unknown_key(word.partition("=")[0])
    differences = dict.fromkeys(_difference(text) for text in parsed.values.get("difference", ()))
    return tuple(differences), parsed.values.get("baseline", (BASELINE,))[0]


def _unknown_key(key: str) -> UserError:
    near = nearest(key, _KEYS)
    hint = f"did you mean '{near}'?" if near else "valid: difference=0.5,1 and baseline=METHOD."
    return UserError(f"unknown selection '{key}'; {hint} See: kdbench power --help")


def _difference(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"difference must be a number of points above 0, such as difference=0.5,1, not '{text}'")
    return value


def _grid(table: TablePower) -> Table:
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("Method")
    for header in ("n", "sd", "shows", "detects", *(f"seeds for {size:g}" for size in table.lines[0].seeds_needed)):
        grid.add_column(header, justify="right", no_wrap=True)
    for line in table.lines:
        grid.add_row(*_cells(line))
    if table.pooled:
        grid.add_section()
        grid.add_row(*_cells(table.pooled))
    return grid


def _cells(line: LinePower) -> list[str]:
    from kdbench.report.detectable import MOST

    differences = [size_text(value) if value is not None else "–" for value in (line.shows, line.detects)]
    seeds = [f"over {MOST}" if n is None else str(n) for n in line.seeds_needed.values()]
    return [line.line, str(line.n or "–"), f"{line.sd:.2f}", *differences, *seeds]
