"""`kdbench diff`: which parameters differ between two methods or two runs."""

from __future__ import annotations

import argparse

from kdbench.cli import folders

SUMMARY = "which resolved parameters differ between two methods or two runs"
DETAILS = """\
A and B are two methods, or two runs: an id, the beginning of one, or a run folder. Methods are resolved with the
selections and bindings that follow; a run's configuration is the one it ran with.
  kdbench diff METHOD OTHER
  kdbench diff METHOD OTHER dataset=cifar100 recipe=smoke
  kdbench diff METHOD-digits-resnet8-s0 OTHER-digits-resnet8-s0 --runs runs
  kdbench diff runs/RUN elsewhere/RUN
exit status: 1 if something differs that must be equal in one table (shared parameters, dataset, student, protocol)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="A B key=value", help="what is compared; selections and bindings")
    folders.add_runs(parser)


def run(arguments: argparse.Namespace) -> int:
    from kdbench.audit import diff

    return diff.diff(arguments.words, folders.runs(arguments))
