"""The lines of epochs.csv for TensorBoard as well (`log=tensorboard`), to watch a run while it trains."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from kdbench.store.folder import EVENTS


class Events:
    """The event file of one run, which says what epochs.csv says: a step is an epoch, a tag is a column.

    A process that resumes a run rewrites the file from the lines that count, so that an epoch which was trained
    twice is in it once, and the curve is whole also if the processes before wrote none.

    Args:
        folder: of the run.
        lines: of epochs.csv, the first one first.
    """

    def __init__(self, folder: Path, lines: Iterable[Mapping[str, Any]]):
        lines = list(lines)
        for before in folder.glob(EVENTS):
            before.unlink()
        # Wall time is training time: a pause between two processes is not part of the curve.
        self._began = time.time() - float(lines[-1]["seconds"] if lines else 0)
        # A TensorBoard that is open forgets what it has read of the file before.
        self._writer = SummaryWriter(str(folder), purge_step=0)
        for line in lines:
            self._put(line)
        self._writer.flush()

    def add(self, line: Mapping[str, Any]) -> None:
        """One more line, to be seen at once."""
        self._put(line)
        self._writer.flush()

    def _put(self, line: Mapping[str, Any]) -> None:
        at = self._began + float(line["seconds"])
        for column, value in line.items():
            if column != "epoch" and value not in (None, ""):
                tag = column.replace(".", "/")  # what TensorBoard groups by
                self._writer.add_scalar(tag, float(value), int(line["epoch"]), walltime=at)
