"""The work that follows a step: checking the loss, the end of an epoch, the report, the state on disk, and stopping."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor

from kdbench.config.settings import Settings
from kdbench.data.task import Task
from kdbench.errors import RunError
from kdbench.run.caller import Caller, Progress
from kdbench.run.compilation import not_compiled
from kdbench.run.evaluate import accuracy
from kdbench.run.loop.budget import Budget
from kdbench.run.loop.state import Training
from kdbench.run.resume import Keeper, Stopped

CHECK_EVERY = 50
"""Steps between two looks at whether the loss is finite: each look waits for the device."""


class Bookkeeper:
    """Keeps the books of one training: called after every step.

    Args:
        caller: its `report` receives the progress, on the first rank.
        keeper: of the state of training; says when it is written.

    Raises:
        RunError: there are fewer steps than states to keep.
    """

    def __init__(
        self, training: Training, task: Task, settings: Settings, budget: Budget, caller: Caller, keeper: Keeper | None
    ):
        self._training, self._task, self._settings, self._budget = training, task, settings, budget
        self._group, self._report, self._keeper = caller.group, caller.report, keeper
        self._since = time.perf_counter()
        states = settings.teaching.states
        self._kept_after = {round(number * budget.steps / states) for number in range(1, states)}
        if budget.steps < states:
            raise RunError(f"a training of {budget.steps} steps is too short to keep {states} states of it")

    def start(self) -> None:
        """Training begins now: what was before does not count as its time."""
        self._since = time.perf_counter()

    def after_step(self, step: int, rate: float, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """
        Raises:
            RunError: the loss is not finite, on all ranks at the same step.
            Stopped: the keeper was asked to stop, and the state is on disk.
        """
        outcome, epochs = self._training.outcome, self._training.epochs
        epochs.add(loss, terms)
        outcome.images_seen += self._budget.per_step
        if step + 1 in self._kept_after:
            weights = self._training.method.deployed().state_dict()
            outcome.states.append({name: value.detach().to("cpu", copy=True) for name, value in weights.items()})
        epoch = self._budget.epoch_after(step)
        new_epoch = epoch > epochs.epoch
        look = new_epoch or step % CHECK_EVERY == CHECK_EVERY - 1
        if look:
            means = epochs.means(step)  # waits for the device
            self._lap()
            if new_epoch:
                with not_compiled(self._settings.machine.compile):
                    self._end_epoch(epoch)
                epochs.write(epoch, outcome, rate, means)
            if self._group.first:
                speed = outcome.images_seen / outcome.seconds
                self._report(
                    Progress(
                        outcome.images_seen, self._budget.total, epoch, self._budget.epochs, speed, outcome.validation
                    )
                )
            self._since = time.perf_counter()
        # Several processes stop and write together, so they agree where they wait for each other anyway.
        if self._keeper and step < self._budget.steps - 1 and (look or self._group.size == 1):
            self._keep(self._keeper, step, new_epoch)

    def finish(self) -> None:
        """Training is over."""
        per_anchor = self._budget.per_step // self._budget.anchors
        self._training.outcome.passes = {**self._training.passes.totals(), "passes.per_anchor": per_anchor}
        self._training.outcome.epochs_csv = self._training.epochs.text
        if self._keeper:
            self._keeper.last = partial(self._training.state, self._budget.steps)

    def _lap(self) -> None:
        now = time.perf_counter()
        self._training.outcome.seconds += now - self._since
        self._since = now

    def _keep(self, keeper: Keeper, step: int, new_epoch: bool) -> None:
        wish = int(self._group.from_first(partial(keeper.wish, new_epoch)))
        if not wish:
            return
        self._lap()
        state = self._training.state(step + 1)
        if self._group.first:
            keeper.save(state)
        if wish == Keeper.STOP:
            raise Stopped
        self._since = time.perf_counter()

    def _end_epoch(self, epoch: int) -> None:
        method, task, outcome, group = self._training.method, self._task, self._training.outcome, self._group
        dataset = self._settings.dataset
        with torch.no_grad():
            method.after_epoch(epoch)
        if self._settings.selection.on_test:
            now = group.from_first(lambda: accuracy(method.deployed(), task.test.choose(), dataset))
            outcome.best_test = now if outcome.best_test is None else max(outcome.best_test, now)
        if not len(task.validation):
            return
        outcome.validation = group.from_first(lambda: accuracy(method.deployed(), task.validation, dataset))
        if outcome.validation > outcome.best_validation:
            outcome.best_validation, outcome.best_epoch = outcome.validation, epoch
            outcome.best = {name: value.clone() for name, value in method.deployed().state_dict().items()}
