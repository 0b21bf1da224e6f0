"""`kdbench submit`: packs finished runs for a pull request to a public leaderboard."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdbench.cli import folders
from kdbench.cli.commands.status import SELECTION
from kdbench.cli.printing import print_text, warn
from kdbench.errors import UserError
from kdbench.words import count

SUMMARY = "package finished runs for a pull request to a public leaderboard"
DETAILS = f"""\
{SELECTION}
  kdbench submit all --to submission.zip
  kdbench submit methods=METHOD dataset=cifar100
The archive holds the rows, and the configuration, result, curves and own files of each run and of its teachers, with checksums;
submission.md is the text of the pull request. The owner of the leaderboard adds the rows with kdbench leaderboard --merge.
Refuses runs that failed or have not finished, that were done with uncommitted changes in the code, or that used the test set to
select. Nothing is sent anywhere."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="all|SELECTION", help="which runs, see below")
    folders.add_runs(parser)
    parser.add_argument(
        "--to", type=Path, default=Path("submission.zip"), metavar="FILE.zip", help="archive (default: submission.zip)"
    )


def run(arguments: argparse.Namespace) -> int:
    from kdbench.audit import submission
    from kdbench.cli import run_filter
    from kdbench.config import places
    from kdbench.launch import status
    from kdbench.report.leaderboard import first

    selected = run_filter.parse(arguments.words)
    if selected.is_empty:
        raise UserError("specify which runs to submit: run ids or prefixes, methods=A,B, dataset=A, …, or 'all'")
    to = places.user_path(arguments.to).resolve()
    if to.suffix != ".zip" or to.is_dir():
        raise UserError(f"--to must be a file name that ends in .zip, not '{arguments.to}'")
    runs = folders.runs(arguments)
    ids = set(selected.ids(runs))
    statuses = selected.select(each for each in status.read(runs) if each.id in ids)
    if not statuses:
        raise UserError(f"no run in {runs} is selected; see all with: kdbench status --all")
    try:
        ready = submission.prepare(runs, [each.id for each in statuses])
    except submission.Refused as refused:
        for sentence in first(refused.sentences):
            warn(sentence)
        return 2
    text = ready.write(to)
    print_text(f"{to}: {count(len(ready.runs), 'run')}\n{text}: the text of the pull request")
    return 0
