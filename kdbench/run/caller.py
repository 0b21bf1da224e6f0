"""The process that does a run, as the run sees it: where progress goes, when to stop, and the group it is part of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kdbench.run.group import Group


@dataclass(frozen=True)
class Progress:
    """The progress of a run, for a display.

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


@dataclass(frozen=True)
class Caller:
    """The process that does a run, as the run sees it.

    Attributes:
        report: receives the progress.
        stop: asked after each step; true: keep the state of training and raise `Stopped`. Asked during the final evaluation
            too, unless this process did nothing else, or is one of several.
        check: called before anything is written; raises `Lost` if this process may not write any more.
        group: the `spec.gpus` processes that do the run together; the first one's `stop` and `check` count.
    """

    report: Report = lambda progress: None
    stop: Callable[[], bool] = lambda: False
    check: Callable[[], None] = lambda: None
    group: Group = field(default_factory=Group)
