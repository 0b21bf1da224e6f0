"""`kdbench logs`: the logs of a run and of its SLURM job."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.cli import folders
from kdbench.cli.printing import print_text
from kdbench.errors import UserError
from kdbench.words import printable

if TYPE_CHECKING:
    from kdbench.launch.logs import Epochs, Piece, RunLogs
    from kdbench.launch.status import RunStatus

SUMMARY = "show the logs of a run and its SLURM job"
DETAILS = """\
The run's log.txt, the last rows of its epochs.csv, and the end of its SLURM job's log.
  kdbench logs METHOD-digits-resnet8-s0
  kdbench logs METHOD-digits-resnet8-s0 --follow
Exit status: 1 if the run failed."""

EVERY = 1.0
"""Seconds between two updates of --follow."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="RUN", help="a run id or prefix")
    folders.add_runs(parser)
    parser.add_argument("--follow", action="store_true", help="print what is added until the run has ended")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.launch import status
    from kdbench.launch.logs import RunLogs
    from kdbench.launch.slurm.queue import SlurmQueue
    from kdbench.launch.status import ENDED
    from kdbench.store import ids
    from kdbench.store.folder import RunFolder

    if len(arguments.words) != 1:
        raise UserError(f"logs takes one run, as in kdbench logs RUN; {len(arguments.words)} given")
    runs = folders.runs(arguments)
    path = ids.folder(arguments.words[0], runs)
    statuses = status.read(runs, [path.name], SlurmQueue())
    if not statuses:
        raise UserError(f"'{path.name}' is not a run folder (it has no config.gin)")
    (current,) = statuses
    print_text(_headline(current))
    logs, printer = RunLogs(RunFolder(runs, current.id)), _Printer()
    pieces = logs.read()
    printer.print(pieces)
    if not pieces:
        print_text("The run has not written any logs yet.")
    if arguments.follow and current.state not in ENDED:
        current = _follow(runs, current, logs, printer)
        print_text(f"\n{_headline(current)}")
    return int(current.state == "failed")


def _follow(runs: Path, current: RunStatus, logs: RunLogs, printer: _Printer) -> RunStatus:
    """Print what is added until the run has ended or the user interrupts; returns its last state."""
    from kdbench.launch import status
    from kdbench.launch.status import ENDED

    try:
        while current.state not in ENDED:
            time.sleep(EVERY)
            current = next(iter(status.read(runs, [current.id])), current)
            printer.print(logs.read())  # after the state, so that the last lines of an ended run are not missed
    except KeyboardInterrupt:
        pass
    return current


def _headline(run: RunStatus) -> str:
    from kdbench.cli.states import detail

    return ", ".join(filter(None, [f"{run.id}: {run.state}", detail(run)]))


class _Printer:
    """Prints pieces of logs, with a heading above the first one of each file."""

    def __init__(self) -> None:
        self._begun: set[Path] = set()
        self._widths: list[int] = []

    def print(self, pieces: Iterable[Piece]) -> None:
        from kdbench.launch.logs import Text

        for piece in pieces:
            if isinstance(piece, Text):
                self._heading(piece.path)
                print_text(piece.text, end="")
            else:
                self._print_epochs(piece)

    def _heading(self, path: Path, suffix: str = "") -> bool:
        if path in self._begun:
            return False
        self._begun.add(path)
        print_text(f"\n== {printable(str(path))}{suffix}")
        return True

    def _print_epochs(self, piece: Epochs) -> None:
        if self._heading(piece.path, f", the last {len(piece.rows)} epochs" if piece.omitted else ""):
            self._widths = _widths(piece.names)
            print_text(printable(self._line(piece.names)))
        for row in piece.rows:
            print_text(printable(self._line([_rounded(cell) for cell in row])))

    def _line(self, cells: Sequence[str]) -> str:
        return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=False))


def _widths(names: Sequence[str]) -> list[int]:
    """The widths of the columns that fit the terminal; all columns where the output is not a terminal."""
    from kdbench.cli.console import console

    available = console().width
    widths = [max(len(name), 9) for name in names]
    while len(widths) > 1 and sum(widths) + 2 * (len(widths) - 1) > available:
        widths.pop()
    return widths


def _rounded(cell: str) -> str:
    try:
        return cell if cell.isdigit() else f"{float(cell):.4g}"
    except ValueError:
        return cell
