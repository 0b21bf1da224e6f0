"""`kdbench status`: what state each run is in, and why."""

from __future__ import annotations

import argparse

from kdbench.cli import folders

SUMMARY = "what is planned, queued, running, done or failed, and why"
DETAILS = """\
SELECTION (all must hold): ids or their beginnings, and words that take comma lists: methods=A,B  dataset=D  student=S
seeds=0,1  state=running,queued,waiting,stopped,planned,cancelled,failed,done
  kdbench status                      counts, and a line for each run that is not finished
  kdbench status state=failed         what failed, and why
  kdbench status METHOD-cifar100 --watch
queued: in a SLURM job that has not come to it. waiting: for its teacher. planned: nobody has begun it; stopped: somebody
had; both go on with the next kdbench run.
exit status: 1 if one of them failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="SELECTION", help="which runs, see below; without it all")
    folders.add_runs(parser)
    parser.add_argument("--all", action="store_true", help="show each finished run too, as a selection does")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="go on until all have ended")
    how.add_argument("--json", action="store_true", help="print a list of objects")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli.commands import status_old as status

    return status.show(arguments.words, folders.runs(arguments), arguments.all, arguments.watch, arguments.json)
