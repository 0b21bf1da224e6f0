"""The training loop: one for all methods. It never asks which method it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from kdbench.config.settings import Settings, Train
from kdbench.data.anchors import Anchors
from kdbench.data.augment import Augmenter, Draws
from kdbench.data.task import Task
from kdbench.errors import RunError
from kdbench.method.base import Batch, Method
from kdbench.method.share import Share
from kdbench.run.evaluate import accuracy
from kdbench.run.group import Group
from kdbench.run.resume import Keeper, Stopped
from kdbench.run.state import Outcome, Record, Training
from kdbench.streams import Streams

CHECK_EVERY = 50
"""Steps between two looks at whether the loss is finite: each look waits for the device."""


@dataclass(frozen=True)
class Progress:
    """Where a run is: for whoever shows it.

    Attributes:
        measured: share of the final evaluation that is done; None before it.
    """

    images: int
    budget: int
    epoch: int
    epochs: int
    images_per_second: float
    validation: float | None
    measured: float | None = None


Report = Callable[[Progress], None]


class Budget:
    """How the budget of images is cut into steps.

    Args:
        train: budget and batch size.
        images: number of training images N; an epoch is N images through the student, whatever the sampler draws.
        images_per_anchor: of the method; a step holds as few whole groups as reach the batch size.
        factor: of a control that trains longer than the recipe says.
    """

    def __init__(self, train: Train, images: int, images_per_anchor: int, factor: float = 1.0):
        self.images = images
        self.anchors = math.ceil(train.batch_size / images_per_anchor)
        self.per_step = self.anchors * images_per_anchor
        self.total = round(factor * train.epochs * images)
        self.steps = self.total // self.per_step  # never over the budget, and less than one step below it
        self.epochs = math.ceil(factor * train.epochs)
        self.warmup_steps = round(train.warmup * images / self.per_step)
        if not self.steps:
            raise RunError(f"the budget of {self.total} images is less than one step of {self.per_step}")

    def epoch_after(self, step: int) -> int:
        """Epochs that are complete once `step` (from 0) is done."""
        return self.epochs if step == self.steps - 1 else (step + 1) * self.per_step // self.images


def steps(
    method: Method,
    task: Task,
    augmenter: Augmenter,
    streams: Streams,
    budget: Budget,
    first: int = 0,
    share: Share | None = None,
) -> Iterator[Batch]:
    """The batches of a run, from step `first` on: the anchors of the seed, and what the method samples around them.

    Args:
        share: what of each batch is wanted, all of it by default; drawn is all of it in any case.
    """
    share = share or Share()
    device = task.train.labels.device
    anchors = Anchors(len(task.train), augmenter, streams, position=first * budget.anchors)
    for step in range(first, budget.steps):
        own = streams.within("method", step)
        places, draws = anchors.take(budget.anchors)
        index = method.sample(places, own)
        if len(index) != budget.per_step or not torch.equal(index[: len(places)], places):
            raise RunError(f"{type(method).__name__}.sample must return its anchors, then the images around them")
        if len(index) > len(places):
            extra = augmenter.draw(len(index) - len(places), streams("augment around", step))
            draws = Draws.join([draws, extra])
        index, draws = share.own(index), Draws(*map(share.own, draws))
        index = index.to(device, non_blocking=True)
        yield Batch(augmenter(index, draws.to(device)), task.train.labels[index], index, step, own, share)


def autocast(recipe: Train, device: torch.device) -> torch.autocast:
    """The precision in which losses are computed."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16")


def train(
    method: Method,
    task: Task,
    settings: Settings,
    streams: Streams,
    epochs_csv: Path,
    report: Report = lambda progress: None,
    group: Group | None = None,
    keeper: Keeper | None = None,
) -> Outcome:
    """Train until the budget is spent; writes one line an epoch to `epochs_csv`.

    Args:
        group: the ranks that share each batch. All of them have the same method and get the same outcome; the first one
            alone evaluates, writes and reports.
        keeper: of the state of training: what it has is gone on from, and it says when to write the next one.

    Raises:
        RunError: the loss is not finite, on all ranks at the same step; a step has fewer anchors than there are ranks.
        Stopped: the keeper was asked to stop, and the state is written; on all ranks at the same step.
    """
    group = group or Group()
    device = task.train.labels.device
    recipe, sgd = settings.train, settings.sgd
    augmenter = Augmenter(task.train.images, settings.augment, settings.dataset)
    budget = Budget(recipe, len(task.train), method.images_per_anchor, settings.control.budget)
    share = group.share(budget.anchors, method.images_per_anchor)
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(
        parameters, lr=sgd.lr, momentum=sgd.momentum, weight_decay=sgd.weight_decay, nesterov=sgd.nesterov
    )
    mixed = autocast(recipe, device)
    outcome, record = Outcome(), Record(epochs_csv if group.first else None, share, settings.machine.log)
    training = Training(method, optimiser, outcome, record, device)
    first = training.restore(keeper.load() if keeper else None)
    group.check_equal({"the steps to go on at": first})
    method.train()
    since = time.perf_counter()
    for batch in steps(method, task, augmenter, streams, budget, first, share):
        step = batch.step
        rate = sgd.lr * recipe.schedule(step / budget.steps)
        if step < budget.warmup_steps:
            rate *= (step + 1) / budget.warmup_steps
        for each in optimiser.param_groups:
            each["lr"] = rate
        with mixed:
            terms = method.losses(batch)
            loss = torch.stack([term.float() for term in terms.values()]).sum()
        optimiser.zero_grad(set_to_none=True)
        share.weighted(loss).backward()
        group.sum_gradients(parameters)
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimiser.step()
        record.add(loss, terms)
        outcome.images_seen += budget.per_step

        epoch = budget.epoch_after(step)
        new_epoch = epoch > record.epoch
        look = new_epoch or step % CHECK_EVERY == CHECK_EVERY - 1
        if look:
            means = record.means(step)  # waits for the device, and raises if a loss is not finite
            now = time.perf_counter()
            outcome.seconds += now - since
            if new_epoch:
                _end_epoch(method, task, settings, outcome, epoch, group)
                record.write(epoch, outcome, rate, means)
            if group.first:
                report(
                    Progress(
                        outcome.images_seen, budget.total, epoch, budget.epochs,
                        outcome.images_seen / outcome.seconds, outcome.validation,
                    )
                )  # fmt: skip
            since = time.perf_counter()
        # Several processes stop and write together, so they agree where they wait for each other anyway.
        if keeper and step < budget.steps - 1 and (look or group.size == 1):
            wish = int(group.from_first(partial(keeper.wish, new_epoch)))
            if wish:
                outcome.seconds += time.perf_counter() - since
                state = training.state(step + 1)
                if group.first:
                    keeper.save(state)
                if wish == Keeper.STOP:
                    raise Stopped
                since = time.perf_counter()
    if keeper:
        keeper.last = partial(training.state, budget.steps)
    return outcome


def _end_epoch(method: Method, task: Task, settings: Settings, outcome: Outcome, epoch: int, group: Group) -> None:
    if settings.selection.on_test:
        now = group.from_first(lambda: accuracy(method.deployed(), task.test.choose(), settings.dataset))
        outcome.best_test = now if outcome.best_test is None else max(outcome.best_test, now)
    if not len(task.validation):
        return
    outcome.validation = group.from_first(lambda: accuracy(method.deployed(), task.validation, settings.dataset))
    if outcome.validation > outcome.best_validation:
        outcome.best_validation, outcome.best_epoch = outcome.validation, epoch
        outcome.best = {name: value.clone() for name, value in method.deployed().state_dict().items()}
