"""`kdbench reproduce`: trains a finished run again and compares."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdbench.cli import folders

SUMMARY = "train a finished run once more and compare it with what is stored"
DETAILS = """\
RUN is a run's folder, or the beginning of an id in the folder of the runs or among the rows of the leaderboard. It is trained
with the values, threads and device that it ran with; its teacher is taken from where it is, or trained first.
  kdbench reproduce METHOD-digits-resnet8-s0
  kdbench reproduce elsewhere/RUN --out /tmp/again
reproduced.json in its new folder says what came out: the accuracies, and what changed in the environment.
exit status: 0 if the weights are the same, bit for bit, else 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="RUN", help="a run folder, or an id or its beginning; see below")
    folders.add_runs(parser)
    folders.add_data(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where it goes (default: reproduced/ in the folder of the runs)"
    )
    parser.add_argument(
        "--board", type=Path, default=Path("leaderboard"), metavar="DIR", help="rows to look in (default: leaderboard/)"
    )


def run(arguments: argparse.Namespace) -> int:
    from kdbench.audit import reproduce

    data = folders.data(arguments)
    return reproduce.reproduce(arguments.words, folders.runs(arguments), data, arguments.out, arguments.board.resolve())
