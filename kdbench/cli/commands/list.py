"""`kdbench list`: what can be selected."""

from __future__ import annotations

import argparse

SUMMARY = "what can be selected"
DETAILS = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help="methods, controls, students, datasets, readers, recipes, sweeps, measures, columns, launchers or clusters "
        "(default: all)",
    )


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli.commands import listing_old as show

    show.print_members(arguments.kind)
    return 0
