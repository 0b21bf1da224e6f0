"""The logs of a run, read piece by piece while they grow: log.txt, epochs.csv, and the log of its SLURM job. No torch here."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.files import open_regular, read_regular
from kdbench.launch.slurm.submission import FOLDER
from kdbench.measures.convergence import MOST_BYTES
from kdbench.plan.spec import is_run_name
from kdbench.store.folder import EPOCHS, LOG, SUBMISSION, RunFolder

EPOCHS_SHOWN = 5
"""Rows of epochs.csv in its first piece."""
JOB_LINES = 20
"""Lines of a job's log in its first piece."""
LONGEST_LINE = 300
"""Characters of a line that is shown as the reason of a job's end."""
_TAIL_BYTES = 1 << 16  # read to find these lines
_MOST_BYTES = 1 << 20
"""Bytes of a file that are read at once; of a longer log, the last ones."""


@dataclass(frozen=True)
class Text:
    """Text that was added to a file; the last line may be incomplete."""

    path: Path
    text: str


@dataclass(frozen=True)
class Epochs:
    """Rows that were added to epochs.csv.

    Attributes:
        names: names of the columns.
        rows: cells of each row, as written.
        omitted: number of earlier rows that this piece leaves out.
    """

    path: Path
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    omitted: int = 0


Piece = Text | Epochs


def reason(log: Path) -> str | None:
    """The line of a job's log that tells best why the job ended: the last one with an error in it, or else the last one.

    None where there is none, or no such file. Lines of srun and submitit do not count if there are others: they add that
    the job has ended, which its state says as well.
    """
    try:
        with open_regular(log) as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode(errors="backslashreplace")
    except (OSError, ValueError):  # ValueError: a path with a zero byte
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()][-JOB_LINES:]
    lines = [line for line in lines if not line.startswith(("srun: ", "submitit "))] or lines
    errors = [line for line in lines if "error" in line.lower()]
    if not lines:
        return None
    return re.sub(r"^kdbench\.errors\.\w+: ", "", (errors or lines)[-1])[:LONGEST_LINE]


class RunLogs:
    """The logs of one run."""

    def __init__(self, folder: RunFolder):
        self._parts = (_TextFile(folder / LOG), _EpochsFile(folder / EPOCHS), _JobLog(folder))

    def read(self) -> list[Piece]:
        """Return what was added since the last call; at the first, log.txt (at most its last MiB) and the end of the others."""
        return [piece for part in self._parts if (piece := part.read())]


def job_log(folder: RunFolder) -> Path | None:
    """The log of the SLURM job that a run was submitted in, which is a file of RUNS/.slurm; None for a run without one.

    Of the recorded path only the name counts: the folder of runs may have moved, and the record may be someone else's.
    """
    log = (folder.read(SUBMISSION) or {}).get("log")
    if not isinstance(log, str) or not is_run_name(Path(log).name):
        return None
    return folder.path.parent / FOLDER / Path(log).name


class _TextFile:
    """A file that text is appended to.

    Args:
        tail: lines of the first piece; None for the whole file, or its last MiB.
    """

    def __init__(self, path: Path, tail: int | None = None):
        self.path = path
        self._tail = tail
        self._offset: int | None = None

    def read(self) -> Text | None:
        text = self._first() if self._offset is None else self._added(self._offset)
        return Text(self.path, text) if text else None

    def _first(self) -> str:
        try:
            size = os.lstat(self.path).st_size
        except (OSError, ValueError):
            size = 0
        text = self._added(max(0, size - (_MOST_BYTES if self._tail is None else _TAIL_BYTES)))
        lines = text.splitlines()
        return "".join(f"{line}\n" for line in (lines if self._tail is None else lines[-self._tail :]))

    def _added(self, offset: int) -> str:
        self._offset = offset
        try:
            with open_regular(self.path) as file:
                if file.seek(0, 2) < offset:  # the file was started again
                    self._offset = 0
                file.seek(self._offset)
                content = file.read(_MOST_BYTES)
        except (OSError, ValueError):  # ValueError: a path from a damaged submission.json
            return ""
        self._offset += len(content)
        return content.decode(errors="replace")


class _JobLog:
    """The log of the SLURM job that the run is in; another file once the run is submitted again."""

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._file: _TextFile | None = None
        self._is_first = True

    def read(self) -> Text | None:
        log = job_log(self._folder)
        if log and (self._file is None or self._file.path != log):
            self._file = _TextFile(log, JOB_LINES if self._is_first else None)
        self._is_first = False
        return self._file.read() if self._file else None


class _EpochsFile:
    """The table of epochs, which loses its last rows when a run resumes from an older state."""

    def __init__(self, path: Path):
        self._path = path
        self._rows: list[list[str]] | None = None

    def read(self) -> Epochs | None:
        """The last rows at first; later those that were added or replaced."""
        names, rows = self._table()
        if self._rows is None:
            start = omitted = max(0, len(rows) - EPOCHS_SHOWN)
        else:
            pairs = enumerate(zip(rows, self._rows, strict=False))
            start = next((number for number, (row, before) in pairs if row != before), len(self._rows))
            omitted = 0
        self._rows = rows
        return Epochs(self._path, names, rows[start:], omitted) if rows[start:] else None

    def _table(self) -> tuple[list[str], list[list[str]]]:
        try:
            text = read_regular(self._path, MOST_BYTES).decode(errors="replace")
            complete = text[: text.rfind("\n") + 1]  # the last line may be half written
            table = [row for row in csv.reader(complete.splitlines()) if row]
        except (OSError, csv.Error):
            return [], []
        return (table[0], table[1:]) if table else ([], [])
