"""Phases: parts of a training with losses, trained parameters and an optimiser of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from kdbench.method.batch import Batch


@dataclass(frozen=True)
class Phase:
    """One part of the training. Each begins with a fresh optimiser; momentum is lost at the switch.

    Attributes:
        name: shown in the log and in error messages.
        share: of the budget; None: what the other phases leave. At most one phase has None.
        losses: terms by name, in place of `Method.losses`.
        trains: the parameters that this phase trains; None: all that require a gradient.
        passes: images through the student for each anchor in this phase, 0 where it trains something else; None: those of
            the method. The budget counts the method's in every phase.
        rate: the "recipe"'s schedule over the length of the phase, or "constant" at the peak rate.
        on_top: spend its images in addition to the budget, in place of a share of it. The result then has more
            `images_seen` than other rows, and tables say so.
    """

    name: str = "training"
    share: float | None = None
    losses: Callable[[Batch], dict[str, Tensor]] | None = None
    trains: Iterable[nn.Parameter] | None = field(default=None, repr=False)
    passes: int | None = None
    rate: Literal["recipe", "constant"] = "recipe"
    on_top: bool = False
