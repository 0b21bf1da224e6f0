"""The lines of epochs.csv for TensorBoard (`log=tensorboard`): an event file in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch.utils.tensorboard import SummaryWriter

from kdbench.run.loggers import Line, metrics
from kdbench.store.folder import EVENTS, RunFolder


class Log:
    """The event file of one run.

    A process that resumes a run rewrites the file from the lines that count, so that an epoch which was trained
    twice is in it once, and the curve is whole also if the processes before wrote none.
    """

    def __init__(self, folder: RunFolder, lines: Sequence[Line]):
        for before in folder.path.glob(EVENTS):
            before.unlink()
        # Wall time is training time: a pause between two processes is not part of the curve.
        self._began = time.time() - float(lines[-1]["seconds"] if lines else 0)
        # A TensorBoard that is open forgets what it has read of the file before.
        self._writer = SummaryWriter(str(folder.path), purge_step=0)
        self._files = list(folder.path.glob(EVENTS))
        for line in lines:
            self._put(line)
        self._writer.flush()

    def add(self, line: Line) -> None:
        self._put(line)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def withdraw(self) -> None:
        # The other process has removed this one's file, but a process that sleeps while it writes a line makes it again.
        self._writer.close()
        for file in self._files:
            file.unlink(missing_ok=True)

    def _put(self, line: Line) -> None:
        at = self._began + float(line["seconds"])
        for name, value in metrics(line, "/").items():
            self._writer.add_scalar(name, value, int(line["epoch"]), walltime=at)
