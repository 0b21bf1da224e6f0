"""`kdbench power`: which differences the seeds can show."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdbench.cli import folders

SUMMARY = "which differences the seeds can show, and how many seeds one needs"
DETAILS = """\
For each line of each table: the smallest difference to the student alone that its seeds show now, the smallest that so
many seeds find with a power of 80 %, and how many seeds a difference (in points of accuracy) needs.
  kdbench power
  kdbench power difference=0.3,2 --out leaderboard"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="difference=D", help="in points, a comma list (default: 0.5,1)")
    rows = parser.add_mutually_exclusive_group()
    folders.add_runs(rows)
    rows.add_argument("--out", type=Path, metavar="DIR", help="a leaderboard, whose committed rows are taken instead")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli.commands import power_old as power

    return power.show(arguments.words, folders.runs(arguments), arguments.out)
