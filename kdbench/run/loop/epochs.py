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

from kdbench.errors import RunError
from kdbench.files import write_atomically
from kdbench.method import Share
from kdbench.run.loop.state import Outcome

if TYPE_CHECKING:
    from kdbench.run.tensorboard import Events


class Epochs:
    """Sums of the loss and its terms, kept on the device, and `epochs.csv`, if this rank writes it.

    Args:
        log: what else is written at an epoch's end, as `Machine.log` has it.
    """

    def __init__(self, path: Path | None, share: Share, log: str = ""):
        self.epoch = 0
        self._path = path
        self._share = share
        self._log = log
        self._events: Events | None = None
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def state(self) -> dict[str, Any]:
        """`epochs.csv` as it is, and the sums since its last line, over whole batches. Collective."""
        text = self._path.read_bytes().decode() if self._path and self._path.exists() else ""
        sums = {name: self._share.mean(value) for name, value in self._sums.items()}
        return {"epoch": self.epoch, "file": text, "sums": sums, "count": self._count}

    def restore(self, state: dict[str, Any] | None, device: torch.device) -> None:
        """Resume from `state`, or begin; lines that were written after it are removed."""
        if self._path is None:
            pass
        elif state is None or not state["file"]:
            self._path.unlink(missing_ok=True)
        else:
            write_atomically(self._path, state["file"].encode())
        if state is not None:
            self.epoch, self._count = state["epoch"], state["count"]
            self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        if self._path is not None and self._log:
            from kdbench.run.tensorboard import Events  # TensorBoard, which is optional

            lines = csv.DictReader(state["file"].splitlines()) if state else []
            self._events = Events(self._path.parent, lines)

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
            _append(self._path, row)
            if self._events is not None:
                self._events.add(row)
        self.epoch, self._sums, self._count = epoch, {}, 0


def _check_finite(means: Mapping[str, float], step: int, advice: Callable[[str | None], str]) -> None:
    if math.isfinite(means["loss"]):
        return
    bad = [name.removeprefix("loss.") for name, mean in means.items() if name != "loss" and not math.isfinite(mean)]
    raise RunError(
        f"the loss is not finite at step {step + 1} (term{'s' * (len(bad) > 1)} {', '.join(bad) or 'sum'}); "
        f"{advice(bad[0] if bad else None)}"
    )


def _append(path: Path, row: dict[str, Any]) -> None:
    """One more line. A phase may bring terms that the lines before do not have: the file then gets their columns."""
    before = path.read_bytes().decode() if path.exists() else ""
    columns = next(csv.reader(before.splitlines()), [])
    new = [column for column in row if column not in columns]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*columns, *new])
    if new:
        writer.writeheader()
        writer.writerows(csv.DictReader(before.splitlines()))
    writer.writerow(row)
    if new and before:
        write_atomically(path, text.getvalue().encode())
    else:
        with path.open("a", newline="", encoding="utf-8") as file:
            file.write(text.getvalue())
