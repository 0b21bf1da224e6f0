"""`kdbench diff`: which parameters differ between two methods or two runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kdbench.cli import folders
from kdbench.cli.console import console
from kdbench.errors import UserError

if TYPE_CHECKING:
    from kdbench.audit.diff import Comparison

SUMMARY = "show which resolved parameters differ between two methods or two runs"
DETAILS = """\
A and B are two methods or two runs (a run id, a prefix of one, or a run folder). Methods are resolved with the selections
and bindings that follow; a run is compared with the configuration that it ran with.
  kdbench diff METHOD OTHER
  kdbench diff METHOD OTHER dataset=cifar100 recipe=smoke
  kdbench diff METHOD-digits-resnet8-s0 OTHER-digits-resnet8-s0 --runs runs
  kdbench diff runs/RUN elsewhere/RUN
Exit status: 1 if something differs that must be equal within a table (shared parameters, dataset, student, protocol), or if one
of the two is a control."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", metavar="A B key=value", help="two methods or runs; selections and bindings for methods"
    )
    folders.add_runs(parser)


def run(arguments: argparse.Namespace) -> int:
    from kdbench.audit import diff

    names = [word for word in arguments.words if "=" not in word]
    if len(names) != 2:
        raise UserError(f"diff compares two methods or two runs, as in kdbench diff A B; {len(names)} given")
    words = [word for word in arguments.words if "=" in word]
    comparison = diff.diff(names[0], names[1], folders.runs(arguments), words)
    _print(comparison)
    return int(not comparison.is_fair)


def _print(comparison: Comparison) -> None:
    from rich.table import Table

    from kdbench.audit.diff import SHARED

    a, b = comparison.a, comparison.b
    out = console()
    for side in (a, b):
        out.print(f"{side.name}: {side.title}")
    if comparison.differences:
        table = Table("parameter", a.name, b.name, "whose", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for each in comparison.differences:
            table.add_row(each.parameter, each.a, each.b, each.owner, style="bold" if each.owner == SHARED else "")
        out.print()
        out.print(table)
    out.print()
    out.print(comparison.summary)
