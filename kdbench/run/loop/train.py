"""The training loop: one for all methods. It never asks which method it runs."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

import torch

from kdbench.config.settings import Settings, Train
from kdbench.data.augment import Augmenter
from kdbench.data.task import Task
from kdbench.errors import RunError
from kdbench.method import Method, Share, Update
from kdbench.method.second_task import with_second_task
from kdbench.run.caller import Caller
from kdbench.run.compilation import beginning_of_step
from kdbench.run.group import Group
from kdbench.run.loop.accumulate import portions, update_in_portions
from kdbench.run.loop.batches import passes_per_anchor, steps, unaugmented
from kdbench.run.loop.bookkeeping import Bookkeeper
from kdbench.run.loop.budget import Budget, Stretch
from kdbench.run.loop.epochs import Epochs
from kdbench.run.loop.passes import Passes
from kdbench.run.loop.state import Outcome, Training
from kdbench.run.loop.terms import Losses, check_gradients, checked, name_of, place
from kdbench.run.resume import Keeper
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
    caller: Caller | None = None,
    keeper: Keeper | None = None,
) -> Outcome:
    """Train until the budget is spent; writes one line per epoch to `epochs_csv`.

    Args:
        caller: receives the progress; the ranks of its group share each batch. All of them have the same method and get
            the same outcome; the first one alone evaluates, writes and reports.
        keeper: of the state of training: training resumes from the state it has, and it says when to write the next one.

    Raises:
        RunError: the loss is not finite, on all ranks at the same step; a step has fewer anchors than there are ranks; other
            images pass through the student than the method declares.
        Stopped: the keeper was asked to stop, and the state is written; on all ranks at the same step.
    """
    caller = caller or Caller()
    group = caller.group
    augmenter = Augmenter.of(task.train, settings)
    declared = passes_per_anchor(method)
    budget = Budget(settings.train, len(task.train), declared, settings.control.budget, method.phases())
    share = group.share(budget.anchors)
    epochs = Epochs(epochs_csv if group.first else None, share, settings.machine.log, caller.check)
    with closing(epochs):
        training = Training(method, Outcome(), epochs, Passes(method, group), task.train.labels.device, {})
        state = keeper.load() if keeper else None
        first = training.restore(state)
        group.check_equal({"the steps to resume at": first})
        if not first:
            _prepare(training, task, settings, streams)
        mixed, parts = autocast(settings.train, training.device), settings.train.accumulate
        books = Bookkeeper(training, task, settings, budget, caller, keeper)
        stretch: Stretch | None = None
        begin_step = beginning_of_step(settings.machine.compile)
        method.train()
        books.start()
        for batch in steps(method, task, augmenter, streams, budget, first, share):
            if stretch is None or batch.step >= stretch.end:
                stretch = budget.stretch(batch.step)
                losses = stretch.phase.losses or method.losses
                of_batch = with_second_task(checked(losses, method), method, settings.second_task.weight)
                update = _begin(stretch, training, settings, group, share)
                if state is not None and stretch.first < first:  # at the very start of a phase its optimisers are fresh
                    training.restore_optimisers(state)
                state = None
            rate = budget.rate(batch.step, settings.optimiser)
            update.set_rate(rate)
            begin_step()
            with training.passes.counted():
                if parts == 1:
                    with mixed:
                        terms = of_batch(batch)
                        update.loss = update.total(terms)
                    method.update(terms, update)
                else:
                    terms = update_in_portions(method, update, portions(batch, budget.anchors, parts), mixed(of_batch))
                if batch.step == stretch.first:
                    check_gradients(losses, method, update.parameters)
                with torch.no_grad():
                    method.after_step(batch)
            in_phase = declared if stretch.phase.passes is None else stretch.phase.passes
            training.passes.check(round(share.weight * budget.anchors), in_phase)
            if batch.step == 0:
                training.epochs.check_first(update.loss, terms, partial(_first_advice, losses, method))
            books.after_step(batch.step, rate, update.loss, terms)
        books.finish()
    return training.outcome


def _first_advice(losses: Losses, method: Method, term: str | None) -> str:
    return (
        f"before anything was trained, so the reason is in {name_of(losses, method)} or its input: a logarithm of 0, a division "
        f"by 0, a root of 0 ({place(losses, term)})"
    )


def _prepare(training: Training, task: Task, settings: Settings, streams: Streams) -> None:
    """The method's pass over the training images before the first step; nothing for a method that asks for none."""
    training.method.eval()
    with torch.no_grad(), training.passes.counted():
        training.method.prepare(unaugmented(task, settings.dataset, streams))


def _begin(stretch: Stretch, training: Training, settings: Settings, group: Group, share: Share) -> Update:
    """Begin a phase: its parameters, and optimisers that remember nothing."""
    trained = stretch.phase.trains if stretch.phase.trains is not None else training.method.parameters()
    parameters = [p for p in trained if p.requires_grad]
    try:
        training.optimisers = training.method.optimisers(parameters, settings.optimiser)
    except AttributeError as error:
        if error.obj is not settings.optimiser:
            raise
        raise RunError(
            f"{type(training.method).__name__}.optimisers reads '{error.name}', which {type(error.obj).__name__} does not have; "
            f"the method needs a recipe with another Train.optimiser than '{settings.train.optimiser}'"
        ) from None
    return Update(parameters, training.optimisers, share, group.sum_gradients, settings.train.clip_norm)
