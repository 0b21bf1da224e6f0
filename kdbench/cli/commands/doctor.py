"""`kdbench doctor`: whether this machine and installation are ready for runs."""

from __future__ import annotations

import argparse
import textwrap

from kdbench.cli import folders
from kdbench.cli.printing import print_text
from kdbench.words import count, printable

SUMMARY = "check versions, device, data, disk, SLURM and optional packages"
DETAILS = """\
Nothing is written. Exit status: 0 if runs can start, 1 if something will fail; the sentence says how to repair it.
  kdbench doctor --data DIR --runs DIR"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    folders.add_runs(parser)
    folders.add_data(parser)


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli.console import console
    from kdbench.launch import diagnosis

    result = diagnosis.diagnose(folders.runs(arguments), folders.data(arguments))
    margin = 2 + max(len(subject) for subject, _ in result.facts)
    for subject, state in result.facts:
        lines = textwrap.wrap(printable(state), max(20, console().width - margin), break_on_hyphens=False)
        print_text(f"{subject:<{margin}}" + f"\n{'':<{margin}}".join(lines))
    for sentence in result.notes:
        print_text(f"note: {sentence}")
    for sentence in result.problems:
        print_text(f"problem: {sentence}")
    print_text(f"{count(len(result.problems), 'problem')} found" if result.problems else "runs can start")
    return 1 if result.problems else 0
