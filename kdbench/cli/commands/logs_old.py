"""`kdbench logs RUN`: what a run and its SLURM job have written. No torch here."""

from __future__ import annotations

import csv
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kdbench.cli.commands.status_old import detail
from kdbench.errors import UserError
from kdbench.launch import status
from kdbench.launch.slurm.queue import Slurm
from kdbench.launch.status import ENDED, Run
from kdbench.store import ids
from kdbench.store.folder import EPOCHS, LOG, SUBMISSION, RunFolder

EVERY = 1.0
"""Seconds between two looks of `--follow`."""
EPOCHS_SHOWN = 5
"""Lines of epochs.csv that are shown at first."""
JOB_LINES = 20
"""Lines of a job's log that are shown at first."""
_END = 1 << 16  # bytes that are looked at for these lines


def show(words: Sequence[str], runs: Path, follow: bool = False) -> int:
    """Print what there is of a run's log.txt, epochs.csv and job's log.

    Args:
        words: the run's id, or its beginning.
        follow: go on with what is added, until the run has ended.

    Returns:
        1 if the run failed, else 0.

    Raises:
        UserError: no run or several are meant.
    """
    if len(words) != 1:
        raise UserError(f"logs takes one run, as in kdbench logs RUN; {len(words)} given")
    path = ids.folder(words[0], runs)
    found = status.read(runs, [path.name], Slurm())
    if not found:
        raise UserError(f"'{path.name}' is no run folder: there is no configuration in it")
    (run,) = found
    print(_about(run))
    folder = RunFolder(runs, run.id)
    parts = (_Text(folder / LOG), _Epochs(folder / EPOCHS), _Job(folder))
    if not any([part.begin() for part in parts]):
        print("It has written nothing yet.")
    if follow and run.state not in ENDED:
        run = _follow(runs, run, parts)
        print(f"\n{_about(run)}")
    return int(run.state == "failed")


def _follow(runs: Path, run: Run, parts: Sequence[_Text | _Epochs | _Job]) -> Run:
    """Print what is added until the run has ended, or the user has seen enough; returns what it was last."""
    try:
        while run.state not in ENDED:
            time.sleep(EVERY)
            run = next(iter(status.read(runs, [run.id])), run)
            for part in parts:  # after the look at the state: what an ended run wrote last is not missed
                part.go_on()
    except KeyboardInterrupt:
        pass
    return run


def _about(run: Run) -> str:
    return ", ".join(filter(None, [f"{run.id}: {run.state}", detail(run)]))


def _heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


class _Text:
    """A file that lines are added to."""

    def __init__(self, path: Path, tail: int | None = None):
        self.path = path
        self._tail = tail
        self._offset = 0
        self._said = False

    def begin(self) -> bool:
        """Print the file, or its end; false if there is nothing in it."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return False
        if self._tail is not None:
            self._offset = max(0, size - _END)
        lines = self._new().splitlines()
        if self._tail is not None:
            lines = lines[-self._tail :]
        if lines:
            self._say("\n".join(lines) + "\n")
        return bool(lines)

    def go_on(self) -> None:
        """Print what was added since."""
        self._say(self._new())

    def _say(self, text: str) -> None:
        if not text:
            return
        if not self._said:
            self._said = True
            _heading(str(self.path))
        print(text, end="", flush=True)

    def _new(self) -> str:
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:  # begun anew
                    self._offset = 0
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return ""
        self._offset += len(content)
        return content.decode(errors="replace")


class _Job:
    """The log of the SLURM job that the run is in; another one once it is submitted again."""

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._log: _Text | None = None

    def begin(self) -> bool:
        path = self._path()
        self._log = _Text(path, JOB_LINES) if path else None
        return self._log.begin() if self._log else False

    def go_on(self) -> None:
        path = self._path()
        if path and (self._log is None or self._log.path != path):
            self._log = _Text(path)
        if self._log:
            self._log.go_on()

    def _path(self) -> Path | None:
        log = (self._folder.read(SUBMISSION) or {}).get("log")
        return Path(log) if log else None


class _Epochs:
    """The table of epochs, whose last lines go when a run goes on from a state that is older than they are."""

    def __init__(self, path: Path):
        self._path = path
        self._widths: list[int] = []
        self._seen: list[list[str]] = []

    def begin(self) -> bool:
        """Print the last epochs; false if there are none."""
        names, self._seen = self._read()
        self._say(names, self._seen[-EPOCHS_SHOWN:], len(self._seen) > EPOCHS_SHOWN)
        return bool(self._seen)

    def go_on(self) -> None:
        """Print the epochs that were added since, or came anew."""
        names, rows = self._read()
        same = next((i for i, (a, b) in enumerate(zip(rows, self._seen, strict=False)) if a != b), len(self._seen))
        self._say(names, rows[same:])
        self._seen = rows

    def _say(self, names: list[str], rows: list[list[str]], more: bool = False) -> None:
        if not rows:
            return
        if not self._widths:
            _heading(f"{self._path}{f', the last {len(rows)} epochs' if more else ''}")
            self._widths = _widths(names)
            print(self._line(names))
        for row in rows:
            print(self._line(list(map(_short, row))), flush=True)

    def _line(self, cells: list[str]) -> str:
        return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=False))

    def _read(self) -> tuple[list[str], list[list[str]]]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError:
            return [], []
        whole = text[: text.rfind("\n") + 1]  # the last line may be half written
        rows = list(csv.reader(whole.splitlines()))
        return (rows[0], rows[1:]) if rows else ([], [])


def _widths(names: list[str]) -> list[int]:
    """Of the columns that a terminal has room for."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6
    widths = [max(len(name), 9) for name in names]
    while len(widths) > 1 and sum(widths) + 2 * (len(widths) - 1) > room:
        widths.pop()
    return widths


def _short(cell: str) -> str:
    try:
        return cell if cell.isdigit() else f"{float(cell):.4g}"
    except ValueError:
        return cell
