"""`kdbench cancel`: stops runs that are queued or running."""

from __future__ import annotations

import argparse

from kdbench.cli import folders
from kdbench.cli.commands.status import SELECTION
from kdbench.cli.printing import print_text
from kdbench.errors import RunError, UserError
from kdbench.words import printable

SUMMARY = "stop queued or running runs, on any machine"
DETAILS = f"""\
{SELECTION}
  kdbench cancel all
  kdbench cancel METHOD-cifar100 state=queued
Running runs save their state and stop within seconds, on any machine. SLURM jobs with no other run to do leave the queue.
The same kdbench run command resumes cancelled runs."""

NAMED = 10
"""Lists of ids up to this length are printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="all|SELECTION", help="which runs, see below")
    folders.add_runs(parser)


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli import run_filter, states
    from kdbench.launch import cancel, status
    from kdbench.launch.slurm.queue import SlurmQueue

    selected = run_filter.parse(arguments.words)
    if selected.is_empty:
        raise UserError("specify which runs to cancel: run ids or prefixes, methods=A,B, state=queued, …, or 'all'")
    runs, queue = folders.runs(arguments), SlurmQueue()
    every = status.read(runs, queue=queue)
    ids = set(selected.ids(runs))
    statuses = selected.select([each for each in every if each.id in ids])
    cancellation = cancel.cancel(statuses, every, runs, queue)
    if not cancellation.runs:
        names = [each.id for each in every]
        print_text(
            f"nothing to cancel: {states.counts(statuses) if statuses else states.no_runs(runs, selected, names)}"
        )
        return 0
    print_text(f"cancelled {states.counts(cancellation.runs)}")
    if len(cancellation.runs) <= NAMED:
        print_text("\n".join(f"  {printable(each.id)}" for each in cancellation.runs))
    if any(each.state == "running" for each in cancellation.runs):
        print_text("Running runs save their state and stop within seconds.")
    jobs = cancellation.jobs
    if cancellation.refusal:
        raise RunError(f"SLURM did not cancel the jobs {', '.join(jobs[:NAMED])}: {cancellation.refusal}")
    if jobs:
        named = f": {', '.join(jobs)}" if len(jobs) <= NAMED else ""
        print_text(f"Removed from SLURM's queue: {len(jobs)} job{'s' * (len(jobs) != 1)}{named}")
    print_text("The same kdbench run command resumes cancelled runs.")
    return 0
