"""`kdbench status`: the state of each run, and the reason for it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from kdbench.cli import folders
from kdbench.cli.printing import print_text

if TYPE_CHECKING:
    from kdbench.launch.status import RunStatus

SUMMARY = "show the state of each run, and why"
SELECTION = """\
SELECTION: run ids or prefixes, and key=value filters (comma-separated); all filters must match:
methods=A,B  dataset=D  student=S  seeds=0,1|0-4  state=running,queued,waiting,stopped,planned,cancelled,unreadable,failed,done"""
DETAILS = f"""\
{SELECTION}
  kdbench status                      counts, and a line for each unfinished run
  kdbench status state=failed         failed runs and their errors
  kdbench status METHOD-cifar100 --watch
queued: waiting in a SLURM job. waiting: for its teacher. planned: not started. stopped: started, then interrupted.
unreadable: a file of its folder is damaged or not a file of kdbench's.
The next kdbench run picks up planned and stopped runs.
Exit status: 1 if one of the runs failed."""

EVERY = 2.0
"""Seconds between two updates of --watch."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="SELECTION", help="which runs, see below (default: all)")
    folders.add_runs(parser)
    parser.add_argument("--all", action="store_true", help="also list finished runs (implied by a selection)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="refresh until all runs have ended")
    how.add_argument("--json", action="store_true", help="print a list of objects")


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from kdbench.cli import run_filter, states
    from kdbench.cli.console import console
    from kdbench.launch import status
    from kdbench.launch.slurm.queue import SlurmQueue
    from kdbench.store import ids

    runs = folders.runs(arguments)
    selected = run_filter.parse(arguments.words)
    every = arguments.all or not selected.is_empty
    queue = SlurmQueue()

    def read() -> list[RunStatus]:
        return selected.select(status.read(runs, selected.ids(runs), queue))

    names = ids.run_ids(runs)
    statuses = read() if names else []
    if arguments.json:
        print_text(json.dumps([asdict(each) for each in statuses], indent=1))
    elif not statuses:
        print_text(states.no_runs(runs, selected, names))
    elif arguments.watch:
        statuses = _watch(read, statuses, names, every)
    elif console().is_terminal:
        console().print(states.view(statuses, names, every))
    else:
        for line in states.lines(statuses, every):
            print_text(line)
    return int(any(each.state == "failed" for each in statuses))


def _watch(
    read: Callable[[], list[RunStatus]], statuses: list[RunStatus], names: Collection[str], every: bool
) -> list[RunStatus]:
    """Show the states until all runs have ended or the user interrupts; returns the last ones read."""
    from rich.live import Live

    from kdbench.cli import states
    from kdbench.cli.console import console
    from kdbench.launch.status import ENDED

    terminal = console()
    try:
        if not terminal.is_terminal:
            printed = ""
            while True:
                if printed != states.counts(statuses):
                    printed = states.counts(statuses)
                    print_text(printed)
                if all(each.state in ENDED for each in statuses):
                    return statuses
                time.sleep(EVERY)
                statuses = read()
        with Live(states.fitting(terminal, statuses, names, every), console=terminal, auto_refresh=False) as screen:
            while not all(each.state in ENDED for each in statuses):
                time.sleep(EVERY)
                statuses = read()
                names = {*names, *(each.id for each in statuses)}
                screen.update(states.fitting(terminal, statuses, names, every), refresh=True)
    except KeyboardInterrupt:  # the runs do not depend on who watches them
        pass
    return statuses
