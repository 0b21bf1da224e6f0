"""What changes as a run goes on: what it has found, the file of epochs, and all of it as a state to go on from."""

from __future__ import annotations

import csv
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdbench.errors import RunError
from kdbench.files import write_atomically
from kdbench.method.base import Method
from kdbench.method.share import Share

if TYPE_CHECKING:
    from kdbench.run.tensorboard import Events


@dataclass
class Outcome:
    """What training leaves besides the weights.

    Attributes:
        images_seen: through the student, in training.
        seconds: of training alone, without evaluation.
        validation: accuracy in percent after the last epoch, None without a validation split.
        best: the deployed network's weights after the epoch that was best on the validation split.
        best_epoch: that epoch, counted from 1.
        best_test: accuracy in percent of the epoch that the test set chose, where it was allowed to.
    """

    images_seen: int = 0
    seconds: float = 0.0
    validation: float | None = None
    best: dict[str, Tensor] | None = None
    best_epoch: int | None = None
    best_test: float | None = None
    best_validation: float = -1.0


@dataclass
class Training:
    """All that changes from step to step; the streams are not among it, they have no state."""

    method: Method
    optimiser: torch.optim.Optimizer
    outcome: Outcome
    record: Record
    device: torch.device

    def state(self, step: int) -> dict[str, Any]:
        """As plain containers and tensors, to go on at `step`; the same on all ranks, which all call it."""
        # The global generators are nothing that kdbench draws from, but a user's method may.
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "step": step,
            "method": self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "outcome": asdict(self.outcome),
            "record": self.record.state(),
            "random": random,
        }

    def restore(self, state: dict[str, Any] | None) -> int:
        """Take up `state`, and return the step to go on at; without one, 0."""
        if state is None:
            self.record.restore(None, self.device)
            return 0
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["outcome"].items():
            setattr(self.outcome, name, value)
        if self.outcome.best is not None:
            self.outcome.best = {name: value.to(self.device) for name, value in self.outcome.best.items()}
        self.record.restore(state["record"], self.device)
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        step: int = state["step"]
        return step


class Record:
    """Sums of the loss and its terms, kept on the device, and the file of epochs, if this rank writes it.

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
        """The file of epochs as it is, and the sums since, over whole batches."""
        text = self._path.read_bytes().decode() if self._path and self._path.exists() else ""
        sums = {name: self._share.mean(value) for name, value in self._sums.items()}
        return {"epoch": self.epoch, "file": text, "sums": sums, "count": self._count}

    def restore(self, state: dict[str, Any] | None, device: torch.device) -> None:
        """Go on from `state`, or begin; lines that were written after it go."""
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
        for name, value in {"loss": loss, **{f"loss.{k}": v for k, v in terms.items()}}.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def means(self, step: int) -> dict[str, float]:
        """Mean of each term over the whole batches since the last epoch's end."""
        names = list(self._sums)
        values = self._share.mean(torch.stack([self._sums[name] for name in names]).div(self._count)).tolist()
        means = dict(zip(names, values, strict=True))
        if not math.isfinite(means["loss"]):
            bad = [name.removeprefix("loss.") for name in names if name != "loss" and not math.isfinite(means[name])]
            raise RunError(
                f"the loss is not finite at step {step + 1} (term{'s' * (len(bad) > 1)} {', '.join(bad) or 'sum'}); "
                "a smaller SGD.lr, Train.warmup or Train.clip_norm may help"
            )
        return means

    def write(self, epoch: int, outcome: Outcome, rate: float, means: dict[str, float]) -> None:
        if self._path is not None:
            row = {
                "epoch": epoch,
                "images": outcome.images_seen,
                "seconds": round(outcome.seconds, 3),
                "lr": rate,
                "accuracy.val": outcome.validation,
                **means,
            }
            fresh = not self._path.exists()
            with self._path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, row)
                if fresh:
                    writer.writeheader()
                writer.writerow(row)
            if self._events is not None:
                self._events.add(row)
        self.epoch, self._sums, self._count = epoch, {}, 0
