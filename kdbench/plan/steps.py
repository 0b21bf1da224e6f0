"""The images of a step, and whether a budget has one: shared by the plan and the loop. No torch here."""

from __future__ import annotations

import math

from kdbench.errors import RunError


def anchors(batch_size: int, passes: int) -> int:
    """Anchors of a step: as few as reach the batch size.

    Args:
        passes: images that pass through the student for each anchor.
    """
    return math.ceil(batch_size / passes)


def budget_of(epochs: float, images: int, factor: float, per_step: int) -> int:
    """The budget in images through the student.

    Args:
        images: number of training images; an epoch is as many through the student.
        factor: times the recipe's budget, for a control that trains longer.
        per_step: images that pass through the student in a step.

    Raises:
        RunError: it is less than one step.
    """
    budget = round(factor * epochs * images)
    if budget < per_step:
        raise RunError(
            f"Train.epochs={epochs:g} of {images:,} training images is a budget of {budget:,} images, less than one step of "
            f"{per_step}; pass a smaller Train.batch_size or more epochs"
        )
    return budget
