"""The loss terms of an epoch, and `epochs.csv`, the file with a line for each."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdbench.config.loggers import named
from kdbench.errors import RunError
from kdbench.files import write_atomically
from kdbench.method import Share
from kdbench.run.loop.state import Outcome
from kdbench.store.folder import RunFolder
from kdbench.store.lease import Lost

if TYPE_CHECKING:
    from kdbench.run.loggers import Loggers


class Epochs:
    """Sums of the loss and its terms, kept on the device, and `epochs.csv`, if this rank writes it.

    The file is always written as a whole, from the lines of this training alone: a process that slept while another one took
    the run over cannot add a line to it.

    Args:
        log: loggers that get the lines too, as `Machine.log` has it.
        check: called before each write; raises if this process may not write any more.

    Attributes:
        text: the content of `epochs.csv`; "" on a rank that does not write it.
    """

    def __init__(self, path: Path | None, share: Share, log: str = "", check: Callable[[], None] = lambda: None):
        self.epoch = 0
        self.text = ""
        self._check = check
        self._path = path
        self._share = share
        self._log = log
        self._loggers: Loggers | None = None
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def state(self) -> dict[str, Any]:
        """The content of `epochs.csv`, and the sums since its last line, over whole batches. Collective."""
        sums = {name: self._share.mean(value) for name, value in self._sums.items()}
        return {"epoch": self.epoch, "file": self.text, "sums": sums, "count": self._count}

    def restore(self, state: dict[str, Any] | None, device: torch.device) -> None:
        """Resume from `state`, or begin; lines that were written after it are removed."""
        if self._path is not None:
            self.text = state["file"] if state else ""
            self._check()
            if self.text:
                write_atomically(self._path, self.text.encode(), before=self._check)
            else:
                self._path.unlink(missing_ok=True)
        if state is not None:
            self.epoch, self._count = state["epoch"], state["count"]
            self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        if self._path is not None and self._log:
            from kdbench.run.loggers import Loggers

            folder = RunFolder(self._path.parent.parent, self._path.parent.name, self._check)
            self._loggers = Loggers(named(self._log), folder, list(csv.DictReader(self.text.splitlines())))

    def close(self) -> None:
        """Training ends, or this process's part of it."""
        if self._loggers is not None:
            try:
                self._check()
            except Lost:
                self._loggers.withdraw()
            else:
                self._loggers.close()

    @torch.no_grad()
    def add(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Add the loss and terms of a step, on the device."""
        for name, value in {"loss": loss, **{f"loss.{k}": v for k, v in terms.items()}}.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def means(self, step: int) -> dict[str, float]:
        """Mean of the loss and of each term over the whole batches since the last epoch's end. Collective.

        A term counts as 0 in steps that do not have it: the terms then add up to the loss.

        Raises:
            RunError: the loss is not finite.
        """
        names = list(self._sums)
        values = self._share.mean(torch.stack([self._sums[name] for name in names]).div(self._count)).tolist()
        means = dict(zip(names, values, strict=True))
        _check_finite(means, step, lambda term: "a smaller SGD.lr, Train.warmup or Train.clip_norm may help")
        return means

    def check_first(self, loss: Tensor, terms: dict[str, Tensor], advice: Callable[[str | None], str]) -> None:
        """Check the loss of the very first step, when no learning rate can be the reason for what it is. Collective.

        Args:
            advice: where to look, given the first term that is not finite; None if only the sum is not.

        Raises:
            RunError: it is not finite, on all ranks.
        """
        named = {"loss": loss, **{f"loss.{name}": value for name, value in terms.items()}}
        values = self._share.mean(torch.stack([value.detach().float() for value in named.values()])).tolist()
        _check_finite(dict(zip(named, values, strict=True)), 0, advice)

    def write(self, epoch: int, outcome: Outcome, rate: float, means: dict[str, float]) -> None:
        """End an epoch: one line, and the sums begin at 0."""
        if self._path is not None:
            row = {
                "epoch": epoch,
                "images": outcome.images_seen,
                "seconds": round(outcome.seconds, 3),
                "lr": rate,
                "accuracy.val": outcome.validation,
                **means,
            }
            self.text = _with_line(self.text, row)
            self._check()
            write_atomically(self._path, self.text.encode(), lasting=False, before=self._check)
            if self._loggers is not None:
                self._check()  # the process may have slept since
                self._loggers.add(row)
        self.epoch, self._sums, self._count = epoch, {}, 0


def _check_finite(means: Mapping[str, float], step: int, advice: Callable[[str | None], str]) -> None:
    if math.isfinite(means["loss"]):
        return
    bad = [name.removeprefix("loss.") for name, mean in means.items() if name != "loss" and not math.isfinite(mean)]
    raise RunError(
        f"the loss is not finite at step {step + 1} (term{'s' * (len(bad) > 1)} {', '.join(bad) or 'sum'}); "
        f"{advice(bad[0] if bad else None)}"
    )


def _with_line(before: str, row: dict[str, Any]) -> str:
    """One more line. A phase may bring terms that the lines before do not have: the file then gets their columns."""
    columns = next(csv.reader(before.splitlines()), [])
    new = [column for column in row if column not in columns]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*columns, *new])
    if new:
        writer.writeheader()
        writer.writerows(csv.DictReader(before.splitlines()))
    writer.writerow(row)
    return text.getvalue() if new else before + text.getvalue()
