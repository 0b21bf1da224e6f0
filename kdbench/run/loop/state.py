"""The state of a training: what it leaves at the end, and all that a later process needs to resume it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdbench.method import Method
from kdbench.streams import global_state, restore_global_state

if TYPE_CHECKING:
    from kdbench.run.loop.epochs import Epochs
    from kdbench.run.loop.passes import Passes


@dataclass
class Outcome:
    """The outcome of training, apart from the weights.

    Attributes:
        images_seen: images through the student, in training.
        seconds: time of training alone, without evaluation.
        validation: accuracy in percent after the last epoch, None without a validation split.
        best: the deployed network's weights after the epoch that was best on the validation split.
        best_epoch: that epoch, counted from 1.
        best_test: accuracy in percent of the epoch that the test set chose, where it was allowed to.
        passes: images through student, peers and teachers, as `Passes.totals` gives them.
        states: the deployed network's weights along the training, on the CPU, as `Teaching.states` asks for; the last ones,
            which are its end, are not among them.
        epochs_csv: the content of `epochs.csv` when training is over; "" on a rank that does not write it.
    """

    images_seen: int = 0
    seconds: float = 0.0
    validation: float | None = None
    best: dict[str, Tensor] | None = None
    best_epoch: int | None = None
    best_test: float | None = None
    best_validation: float = -1.0
    passes: dict[str, int] | None = None
    states: list[dict[str, Tensor]] = field(default_factory=list)
    epochs_csv: str = ""


@dataclass
class Training:
    """All that changes from step to step. The random streams are not part of it: they have no state.

    Attributes:
        optimisers: of the phase that is being trained.
    """

    method: Method
    outcome: Outcome
    epochs: Epochs
    passes: Passes
    device: torch.device
    optimisers: Mapping[str, torch.optim.Optimizer]

    def state(self, step: int) -> dict[str, Any]:
        """As plain containers and tensors, to resume at `step`; the same on all ranks. Collective."""
        return {
            "step": step,
            "method": self.method.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "outcome": {**asdict(self.outcome), "passes": self.passes.totals()},
            "epochs": self.epochs.state(),
            "random": global_state(self.device),
        }

    def restore(self, state: Mapping[str, Any] | None) -> int:
        """Take up `state` but for the optimisers, whose phase it names, and return the step to resume at; 0 without one."""
        if state is None:
            self.epochs.restore(None, self.device)
            return 0
        self.method.load_state_dict(state["method"])
        for name, value in state["outcome"].items():
            setattr(self.outcome, name, value)
        if self.outcome.best is not None:
            self.outcome.best = {name: value.to(self.device) for name, value in self.outcome.best.items()}
        self.passes.restore(state["outcome"]["passes"])
        self.epochs.restore(state["epochs"], self.device)
        restore_global_state(state["random"], self.device)
        step: int = state["step"]
        return step

    def restore_optimisers(self, state: Mapping[str, Any]) -> None:
        """Take up the optimisers of `state`, in the phase that it was saved in."""
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
