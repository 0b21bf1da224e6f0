"""`kdbench leaderboard`: writes or checks the leaderboard."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdbench.cli import folders
from kdbench.errors import UserError

SUMMARY = "write the leaderboard from all finished runs"
DETAILS = """\
README.md has one table a protocol, dataset and student; tables.csv (full precision) and tables.tex (booktabs) have the same.
  kdbench leaderboard
  kdbench leaderboard --html                  index.html too: sort, filter, and open rows to see runs and their curves
  kdbench leaderboard columns=accuracy,delta,p,top5,ece,corruptions,noise.0.1
  kdbench leaderboard --plots                 plots/TABLE/: cost, curves, severity, exits; plots/critical-difference; SVG and PNG
  kdbench leaderboard --check                 with the columns that README.md says it was made with"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", metavar="columns=A,B", help="what the tables show (see kdbench list columns)"
    )
    folders.add_runs(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="where it goes (default: leaderboard/)"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the files are not what the committed rows give"
    )
    parser.add_argument(
        "--html", action="store_true", help="write index.html too, for a browser (needs jinja2, itables)"
    )
    parser.add_argument("--plots", action="store_true", help="draw the tables too, into plots/ (needs matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.report.tables import columns

    asked = columns.parse(arguments.words)  # before pandas is imported: a typing error is answered at once
    from kdbench.report import leaderboard

    out = arguments.out.resolve()
    if arguments.check and (arguments.html or arguments.plots):
        raise UserError("--check writes nothing: give it without --html and --plots")
    if arguments.check:
        wrong = leaderboard.check(out, asked)
        for sentence in leaderboard.first(wrong):
            print(f"kdbench: {sentence}", file=sys.stderr)
        return int(bool(wrong))
    if arguments.plots:
        from kdbench.report.plots import figures

        figures.check_matplotlib()
    outcome = leaderboard.regenerate(folders.runs(arguments), out, asked, arguments.html)
    for message in leaderboard.first(outcome.messages):
        print(f"kdbench: {message}", file=sys.stderr)
    state = "written" if outcome.changed else "unchanged"
    waiting = f"; {outcome.open} runs have no result yet" if outcome.open else ""
    print(f"{out / 'README.md'}: {len(outcome.tables)} tables from {outcome.runs} runs, {state}{waiting}")
    if arguments.plots:
        drawn = figures.write(outcome.tables, folders.runs(arguments), out, outcome.sha256)
        for message in drawn.messages:
            print(f"kdbench: {message}", file=sys.stderr)
        print(f"{out / figures.PLOTS}: {len(drawn.files) // len(figures.KINDS)} pictures, each as SVG and PNG")
    page = out / leaderboard.PAGE
    if arguments.html:
        print(f"{page}: {page.stat().st_size / 1e3:.0f} kB, open it in a browser")
    elif page.is_file() and outcome.changed:
        print(f"kdbench: {page} is still of the rows before; write it anew with --html", file=sys.stderr)
    return 0
