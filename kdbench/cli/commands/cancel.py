"""`kdbench cancel`: stops runs that are queued or running."""

from __future__ import annotations

import argparse

from kdbench.cli import folders

SUMMARY = "stop runs that are queued or running, on whatever machine"
DETAILS = """\
SELECTION (all must hold): ids or their beginnings, and words that take comma lists: methods=A,B  dataset=D  student=S
seeds=0,1  state=running,queued,waiting,stopped,planned,cancelled,failed,done
  kdbench cancel all
  kdbench cancel METHOD-cifar100 state=queued
Runs that are running keep their state and stop within seconds, on whatever machine; SLURM jobs that have nothing left to do
leave the queue. The same kdbench run command goes on with them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="all|SELECTION", help="which runs, see below")
    folders.add_runs(parser)


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli.commands import cancel_old as cancel

    return cancel.cancel(arguments.words, folders.runs(arguments))
