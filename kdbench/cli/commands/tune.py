"""`kdbench tune`: chooses a method's own parameters on the validation split."""

from __future__ import annotations

import argparse

from kdbench.cli import folders

SUMMARY = "choose a method's own parameters on the validation split"
DETAILS = """\
Every method gets the same N trials over the Search.space of its gin file; the first is its gin values. A trial is a run
that never reads the test set: what counts is the mean accuracy over the seeds on the validation split, after the last
epoch. A study goes on where it was, and a larger N continues it.
  kdbench tune METHOD trials=20 dataset=cifar100
  kdbench tune METHOD,OTHER trials=20 seeds=0,1 Split.validation=0.1     selections and shared bindings as in kdbench run
  kdbench tune all trials=20 --dry-run                                   the studies, their trials and search spaces
It ends with the command that runs each method's best values; the rows of such runs say how many trials it took.
exit status: 1 if a method has no trial that finished."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="METHOD trials=N key=value", help="see below")
    folders.add_runs(parser)
    folders.add_data(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the studies and stop")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.tune import trials

    return trials.tune(arguments.words, folders.runs(arguments), folders.data(arguments), arguments.dry_run)
