"""`kdbench export`: packs the leaderboard and its sources."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdbench.cli import folders
from kdbench.cli.printing import print_text

SUMMARY = "package the leaderboard and its sources as supplementary material"
DETAILS = """\
The archive holds the rows and tables of the leaderboard, the configuration of each run (or its command, if its folder is gone),
the versions and machines of the runs, the packages installed here, and checksums for sha256sum -c. Its README.txt explains how to
check it and how to retrain its runs. Fails if the page or a plot is out of date. The same leaderboard always gives identical bytes.
  kdbench export --to supplement.zip"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    folders.add_runs(parser)
    folders.add_leaderboard(parser, "--out", "leaderboard to package")
    parser.add_argument(
        "--to", type=Path, metavar="FILE.zip", help="archive to write (default: leaderboard.zip next to it)"
    )


def run(arguments: argparse.Namespace) -> int:
    from kdbench.audit import export
    from kdbench.config import places

    to = places.user_path(arguments.to).resolve() if arguments.to else None
    print_text(export.export(folders.runs(arguments), arguments.out.resolve(), to))
    return 0
