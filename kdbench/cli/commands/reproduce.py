"""`kdbench reproduce`: trains a finished run again and compares."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.cli import folders
from kdbench.cli.console import console
from kdbench.cli.printing import warn
from kdbench.errors import UserError

if TYPE_CHECKING:
    from kdbench.audit.reproduce import Outcome

SUMMARY = "retrain a finished run and compare the result with the stored one"
DETAILS = """\
RUN is a run folder, or the id (or a prefix) of a run in the runs folder or the leaderboard. It is retrained with its original
values, threads and device. The weights of its teacher are copied if they still exist; otherwise the teacher is retrained first.
  kdbench reproduce METHOD-digits-resnet8-s0
  kdbench reproduce elsewhere/RUN --out /tmp/again
If another process is already retraining it, the command waits, and takes it over if that process dies.
reproduced.json in the new run folder records the outcome: the accuracies, and what changed in the environment.
A row of somebody else (kdbench leaderboard --merge) is marked as confirmed or contradicted in the leaderboard: the weights must
be bit-identical if nothing in the environment differs, else the accuracy must agree to 1 percentage point.
Exit status: 0 if the weights are bit-identical, or a row of somebody else is confirmed; else 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="RUN", help="a run folder, a run id or a prefix")
    folders.add_runs(parser)
    folders.add_data(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to train in (default: reproduced/ in the runs folder)"
    )
    folders.add_leaderboard(parser, "--board", "leaderboard to search")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.audit import confirmation, reproduce
    from kdbench.report.records import CONFIRMED
    from kdbench.store.folder import RunFolder

    if len(arguments.words) != 1:
        raise UserError(f"reproduce takes one run, as in kdbench reproduce RUN; {len(arguments.words)} given")
    runs, data, board = folders.runs(arguments), folders.data(arguments), arguments.board.resolve()
    reproduction = reproduce.prepare(arguments.words[0], runs, data, arguments.out, board)
    for change in reproduction.changes:
        warn(change)
    outcome = reproduce.carry_out(reproduction)
    folder = RunFolder(reproduction.out, reproduction.spec.id)
    _print(outcome, folder.path)
    judgement = confirmation.record(board, reproduction.run, outcome, folder.typed_result())
    if judgement:
        console().print(judgement.sentence, soft_wrap=True)
    return int(not (judgement.verdict == CONFIRMED if judgement else outcome.identical))


def _print(outcome: Outcome, folder: Path) -> None:
    from rich.table import Table

    out = console()
    table = Table("", "stored", "here", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rows: dict[str, Any] = {**outcome.accuracy, **outcome.weights, **outcome.environment}
    for key, values in rows.items():
        if values["stored"] != values["here"]:
            by = f"{values['difference']:+.2f} points" if "difference" in values else ""
            table.add_row(key, _text(values["stored"]), _text(values["here"]), by)
    if table.row_count:
        out.print(table)
        out.print()
    out.print(outcome.summary)
    out.print(f"The run is in {folder}", soft_wrap=True)  # a path that can be copied


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
