"""`kdbench logs`: what a run and its SLURM job have written."""

from __future__ import annotations

import argparse

from kdbench.cli import folders

SUMMARY = "what a run and its SLURM job have written"
DETAILS = """\
The run's log.txt, the last lines of its epochs.csv, and the end of its SLURM job's log.
  kdbench logs METHOD-digits-resnet8-s0
  kdbench logs METHOD-digits-resnet8-s0 --follow
exit status: 1 if it failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="RUN", help="an id, or the beginning of one")
    folders.add_runs(parser)
    parser.add_argument("--follow", action="store_true", help="go on until the run has ended")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli.commands import logs_old as logs

    return logs.show(arguments.words, folders.runs(arguments), arguments.follow)
