"""`kdbench export`: packs the leaderboard and its sources."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdbench.cli import folders

SUMMARY = "pack the leaderboard with all that it comes from, for a paper"
DETAILS = """\
One archive holds the rows and tables of the leaderboard, the configuration of each run (its command, where its folder is gone),
what the runs were made with and what is installed here, and checksums for sha256sum -c. Its README.txt says how to check it and
to train its runs once more. A page or a picture of other rows is refused. The same leaderboard gives the same bytes.
  kdbench export --to supplement.zip"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    folders.add_runs(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="the leaderboard (default: leaderboard/)"
    )
    parser.add_argument("--to", type=Path, metavar="FILE.zip", help="the archive (default: leaderboard.zip, beside it)")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.audit import export

    print(
        export.export(
            folders.runs(arguments), arguments.out.resolve(), arguments.to and arguments.to.expanduser().resolve()
        )
    )
    return 0
