"""The budget of images, cut into steps and phases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdbench.config.optimisers import SGD, AdamW
from kdbench.config.settings import Train
from kdbench.errors import RunError
from kdbench.method import Phase
from kdbench.plan import steps


@dataclass(frozen=True)
class Stretch:
    """The steps of one phase: `first` up to, but not including, `end`."""

    phase: Phase
    first: int
    end: int

    def progress(self, step: int) -> float:
        """Share of the phase that is done before `step`, 0 to below 1."""
        return (step - self.first) / (self.end - self.first)


class Budget:
    """The steps of a run.

    Args:
        train: budget and batch size.
        images: number of training images N; an epoch is N images through the student, whatever the sampler draws.
        passes: images through the student for each anchor; a step holds as few whole groups as reach the batch size.
        factor: times the recipe's budget, for a control that trains longer.
        phases: of the method.

    Attributes:
        anchors, per_step: of a step: its anchors, and the images that pass through the student.
        total: images that the budget pays for, and those that phases spend on top of it.
        paid: steps that the budget pays for: never over it, and less than one step below it.
        steps: all steps, those on top of the budget included.

    Raises:
        RunError: the budget is less than one step; the phases do not share it out.
    """

    def __init__(
        self, train: Train, images: int, passes: int, factor: float = 1.0, phases: Sequence[Phase] = (Phase(),)
    ):
        self.images = images
        self.anchors = steps.anchors(train.batch_size, passes)
        self.per_step = self.anchors * passes
        budget = steps.budget_of(train.epochs, images, factor, self.per_step)
        self.paid = budget // self.per_step
        self.stretches = _stretches(phases, self.paid)
        self.steps = self.stretches[-1].end
        on_top = (self.steps - self.paid) * self.per_step
        self.total = budget + on_top
        self.epochs = math.ceil(factor * train.epochs + on_top / images)
        self.warmup_steps = round(train.warmup * images / self.per_step)
        self._schedule = train.schedule

    def epoch_after(self, step: int) -> int:
        """Epochs that are complete once `step` (from 0) is done."""
        return self.epochs if step == self.steps - 1 else (step + 1) * self.per_step // self.images

    def epoch_of(self, step: int) -> int:
        """The epoch (from 1) in which `step` begins."""
        return step * self.per_step // self.images + 1

    def stretch(self, step: int) -> Stretch:
        """The phase that `step` belongs to."""
        return next(stretch for stretch in self.stretches if step < stretch.end)

    def rate(self, step: int, optimiser: SGD | AdamW) -> float:
        """The learning rate of `step`: the schedule over its phase, behind the recipe's warm-up."""
        stretch = self.stretch(step)
        peak = optimiser.lr
        rate = peak if stretch.phase.rate == "constant" else peak * self._schedule(stretch.progress(step))
        return rate * (step + 1) / self.warmup_steps if step < self.warmup_steps else rate


def _stretches(phases: Sequence[Phase], paid: int) -> list[Stretch]:
    rest = [phase for phase in phases if phase.share is None]
    shares = [phase.share for phase in phases if phase.share is not None and not phase.on_top]
    names = ", ".join(phase.name if phase.share is None else f"{phase.name} {phase.share:g}" for phase in phases)
    too_small = any(phase.share is not None and phase.share <= 0 for phase in phases)
    if len(rest) != 1 or rest[0].on_top or too_small or sum(shares) >= 1:
        raise RunError(
            f"the phases ({names}) must have shares above 0 and below 1 together, and one without a share for the rest, "
            "which cannot be on top of the budget"
        )
    counts = [0 if phase.share is None else round(phase.share * paid) for phase in phases]
    in_budget = sum(count for count, phase in zip(counts, phases, strict=True) if not phase.on_top)
    counts[phases.index(rest[0])] = paid - in_budget
    if min(counts) < 1:
        raise RunError(f"a budget of {paid} steps is too short for the phases ({names}): one of them has no step")
    ends = [sum(counts[: place + 1]) for place in range(len(counts))]
    return [Stretch(phase, end - n, end) for phase, n, end in zip(phases, counts, ends, strict=True)]
