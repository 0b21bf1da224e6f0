"""Learning-rate schedules: the factor on the peak learning rate as a function of progress. Pure, and without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import gin


@gin.configurable
@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to `final`. Loshchilov and Hutter, SGDR, ICLR 2017, equation 5 without restarts."""

    final: float

    def __call__(self, progress: float) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@gin.configurable
@dataclass(frozen=True)
class MultiStep:
    """A factor `gamma` at each milestone; milestones are shares of the budget (150 of 240 epochs: 0.625)."""

    milestones: tuple[float, ...]
    gamma: float

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
            raise ValueError("MultiStep.milestones must be increasing, each above 0 and below 1 (shares of the budget)")

    def __call__(self, progress: float) -> float:
        return self.gamma ** sum(progress >= m for m in self.milestones)


@gin.configurable
@dataclass(frozen=True)
class OneCycle:
    """Rises from 1/`start_divisor` to 1 over the share `rise` of the budget, then falls to 1/(start·final divisor), in cosines.

    Smith and Topin, "Super-convergence", 2017, with the two cosine phases that torch.optim.lr_scheduler.OneCycleLR uses.
    """

    rise: float
    start_divisor: float
    final_divisor: float

    def __post_init__(self) -> None:
        if not 0 < self.rise < 1:
            raise ValueError("OneCycle.rise must be above 0 and below 1 (a share of the budget)")

    def __call__(self, progress: float) -> float:
        start = 1 / self.start_divisor
        if progress < self.rise:
            return _between(start, 1.0, progress / self.rise)
        return _between(1.0, start / self.final_divisor, (progress - self.rise) / (1 - self.rise))


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))


SCHEDULES = (Cosine, MultiStep, OneCycle)
