"""`kdbench leaderboard`: writes or checks the leaderboard."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.cli import folders
from kdbench.cli.printing import print_text, warn
from kdbench.errors import UserError
from kdbench.words import count

if TYPE_CHECKING:
    from kdbench.report.foreign.source import Source
    from kdbench.report.leaderboard import Outcome
    from kdbench.report.tables.axes import Axes

SUMMARY = "write the leaderboard from all finished runs"
DETAILS = """\
README.md has one table per protocol, dataset and student; tables.csv (nine digits) and tables.tex (booktabs) have the same.
  kdbench leaderboard
  kdbench leaderboard --html                  also writes index.html: sort, filter, and open rows to see runs and their curves
  kdbench leaderboard columns=accuracy,delta,p,top5,ece,corruptions,noise.0.1
  kdbench leaderboard baseline=kd             differences from another method, with its usual values
  kdbench leaderboard rows=method columns=student
                                              also writes and prints a grid of accuracies, and one of differences from ce or
                                              from baseline=METHOD: method-by-student.md, .csv, .tex;
                                              one axis is method, the other one student, dataset or dataset,student
  kdbench leaderboard --plots                 also writes plots/TABLE/ (cost, curves, severity, exits) and
                                              plots/critical-difference, as SVG and PNG
  kdbench leaderboard --merge OTHER.zip       adds the rows of an archive of kdbench export or submit, or of another results.csv;
                                              tables mark them until kdbench reproduce RUN has confirmed them on this machine
  kdbench leaderboard --check                 with the columns and the baseline recorded in README.md
Exit status: 1 if --check finds a file that is out of date."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="key=value",
        help="columns=A,B (see kdbench list columns), baseline=METHOD, rows=AXIS",
    )
    folders.add_runs(parser)
    folders.add_leaderboard(parser, "--out", "folder to write")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the generated files are out of date"
    )
    parser.add_argument(
        "--merge",
        type=Path,
        metavar="FILE",
        help="also merge the rows of this results.csv or archive of another leaderboard",
    )
    parser.add_argument("--html", action="store_true", help="also write index.html (needs jinja2, itables)")
    parser.add_argument("--plots", action="store_true", help="also write plots/ (needs matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.report import request as request_

    request = request_.parse(arguments.words)  # before pandas is imported: a typing error is answered at once
    from kdbench.report import leaderboard

    out, runs = arguments.out.resolve(), folders.runs(arguments)
    if arguments.check:
        if arguments.html or arguments.plots or arguments.merge:
            raise UserError("--check cannot be combined with --html, --plots or --merge")
        wrong = leaderboard.check(out, request)
        _warn(leaderboard.first(wrong))
        return int(bool(wrong))
    if arguments.plots:
        from kdbench.report.plots import figures

        figures.check_matplotlib()
    foreign = _foreign(arguments.merge) if arguments.merge else None
    outcome = leaderboard.regenerate(runs, out, request, arguments.html, foreign)
    _warn(leaderboard.first(outcome.messages))
    if foreign:
        print_text(f"{foreign.name}: {count(outcome.added, 'row')} merged, {outcome.present} already here")
    state = "written" if outcome.changed else "unchanged"
    have = "has" if outcome.open == 1 else "have"
    unfinished = f"; {count(outcome.open, 'run')} {have} no result yet" if outcome.open else ""
    tables = f"{count(len(outcome.tables), 'table')} from {count(outcome.runs, 'run')}"
    print_text(f"{out / leaderboard.README}: {tables}, {state}{unfinished}")
    if request.axes:
        _print_grids(outcome, request.axes, out)
    if arguments.plots:
        _draw(outcome, runs, out)
    page = out / leaderboard.PAGE
    if arguments.html:
        print_text(f"{page}: {page.stat().st_size / 1e3:.0f} kB, open it in a browser")
    elif page.is_file() and outcome.changed:
        _warn([f"{page} is out of date; regenerate it with --html"])
    return 0


def _foreign(path: Path) -> Source:
    from kdbench.config import places
    from kdbench.report.foreign import source

    return source.read(places.user_path(path))


def _print_grids(outcome: Outcome, by: Axes, out: Path) -> None:
    from kdbench.cli.console import console
    from kdbench.report.formats.terminal import TerminalSection
    from kdbench.report.tables import grids

    made = grids.grids(outcome.tables, by)
    print_text(f"{out / by.name}.md, .csv, .tex: {count(len(made), 'grid')}")
    for grid in made:
        for section in grids.sections(grid):
            console().print(TerminalSection(section))


def _draw(outcome: Outcome, runs: Path, out: Path) -> None:
    from kdbench.report.plots import figures

    drawn = figures.write(outcome.tables, runs, out, outcome.sha256)
    _warn(drawn.messages)
    print_text(f"{out / figures.PLOTS}: {count(len(drawn.files) // len(figures.KINDS), 'plot')}, each as SVG and PNG")


def _warn(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        warn(sentence)
