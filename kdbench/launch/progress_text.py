"""The progress of runs in words, which all displays share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.store.folder import LOG
from kdbench.words import printable

if TYPE_CHECKING:
    from kdbench.plan.spec import Spec
    from kdbench.run.caller import Progress


def ending(result: dict[str, Any], runs: Path | None = None) -> str:
    """The outcome of a run, in a few words; of a failed one, also the path of its log in `runs`."""
    if result["status"] == "failed":
        log = runs / result["run"] / LOG if runs and "run" in result else None
        return printable(f"failed: {result['error']}") + (f"; traceback: {log}" if log and log.is_file() else "")
    if "trial" in result:  # from kdbench tune, which does not read the test set
        return f"{result['trial']}: {result['accuracy.val']:.2f} % on the validation split"
    return f"{result['accuracy.last']:.2f} % in {clock(result['seconds.train'])}, {result['cost.images_per_second']:.0f} images/s"


def clock(seconds: float) -> str:
    """A duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seconds_left(progress: Progress) -> float:
    return (progress.budget - progress.images) / progress.images_per_second


def measured(progress: Progress) -> str:
    return f"measuring, {progress.measured:.0%} done"


def facts(progress: Progress) -> str:
    if progress.measured is not None:
        return measured(progress)
    validation = f" · val {progress.validation:.1f} %" if progress.validation is not None else ""
    return (
        f"epoch {progress.epoch}/{progress.epochs} · {progress.images_per_second:.0f} images/s"
        f" · {clock(seconds_left(progress))} left{validation}"
    )


def overall(done: float, ended: int, total: int, began: float) -> str:
    """Runs that have ended, and the time that the others will take.

    Args:
        done: runs, with the parts of those that are running.
        began: when the first began, by the monotonic clock.
    """
    spent = time.monotonic() - began
    left = f" · {clock(spent / done * (total - done))} left" if done > 0.05 and ended < total else ""
    return f"{ended}/{total}{left}"


def short(spec: Spec) -> str:
    return f"{spec.method} {spec.dataset} {spec.student} s{spec.seed}" + (" (teacher)" if spec.is_teacher else "")
