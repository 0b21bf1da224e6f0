"""The training loop: one for all methods. It never asks which method it runs."""

from __future__ import annotations

from pathlib import Path

import torch

from kdbench.config.settings import Settings, Train
from kdbench.data.augment import Augmenter
from kdbench.data.task import Task
from kdbench.method import Method, Share, Update
from kdbench.run.batches import passes_per_anchor, steps, unaugmented
from kdbench.run.bookkeeping import Bookkeeper, Report
from kdbench.run.budget import Budget, Stretch
from kdbench.run.epochs import Epochs
from kdbench.run.group import Group
from kdbench.run.passes import Passes
from kdbench.run.resume import Keeper
from kdbench.run.state import Outcome, Training
from kdbench.streams import Streams


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
        keeper: of the state of training: training resumes from the state it has, and it says when to write the next one.

    Raises:
        RunError: the loss is not finite, on all ranks at the same step; a step has fewer anchors than there are ranks; other
            images pass through the student than the method declares.
        Stopped: the keeper was asked to stop, and the state is written; on all ranks at the same step.
    """
    group = group or Group()
    device = task.train.labels.device
    recipe = settings.train
    augmenter = Augmenter(task.train.images, settings.augment, settings.dataset, settings.strong)
    declared = passes_per_anchor(method)
    budget = Budget(recipe, len(task.train), declared, settings.control.budget, method.phases())
    share = group.share(budget.anchors)
    own_anchors = round(share.weight * budget.anchors)
    passes = Passes(method, group)
    epochs = Epochs(epochs_csv if group.first else None, share, settings.machine.log)
    training = Training(method, Outcome(), epochs, passes, device, {})
    state = keeper.load() if keeper else None
    first = training.restore(state)
    group.check_equal({"the steps to resume at": first})
    if not first:
        _prepare(method, task, settings, streams, passes)
    mixed = autocast(recipe, device)
    books = Bookkeeper(training, task, settings, budget, group, report, keeper)
    stretch: Stretch | None = None
    method.train()
    books.start()
    for batch in steps(method, task, augmenter, streams, budget, first, share):
        step = batch.step
        if stretch is None or step >= stretch.end:
            stretch = budget.stretch(step)
            losses = stretch.phase.losses or method.losses
            update = _begin(stretch, training, settings, group, share)
            if state is not None and stretch.first < first:  # at the very start of a phase its optimiser is fresh
                for name, optimiser in training.optimisers.items():
                    optimiser.load_state_dict(state["optimisers"][name])
            state = None
        rate = budget.rate(step, settings.sgd)
        update.set_rate(rate)
        with passes.counted():
            with mixed:
                terms = losses(batch)
                update.loss = update.total(terms)
            method.update(terms, update)
            with torch.no_grad():
                method.after_step(batch)
        passes.check(own_anchors, declared)
        books.after_step(step, rate, update.loss, terms)
    books.finish()
    return training.outcome


def _prepare(method: Method, task: Task, settings: Settings, streams: Streams, passes: Passes) -> None:
    """The method's pass over the training images before the first step; nothing for a method that asks for none."""
    method.eval()
    with torch.no_grad(), passes.counted():
        method.prepare(unaugmented(task, settings.dataset, streams))


def _begin(stretch: Stretch, training: Training, settings: Settings, group: Group, share: Share) -> Update:
    """Begin a phase: its parameters, and optimisers that remember nothing."""
    trained = stretch.phase.trains if stretch.phase.trains is not None else training.method.parameters()
    parameters = [p for p in trained if p.requires_grad]
    training.optimisers = training.method.optimisers(parameters, settings.sgd)
    return Update(parameters, training.optimisers, share, group.sum_gradients, settings.train.clip_norm)
