"""What a user sees while runs go on: live bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

if TYPE_CHECKING:
    from kdbench.plan import Spec
    from kdbench.train import Progress

PLAIN_EVERY = 30.0
"""Seconds between two lines about one run where nobody watches a terminal."""


class Display(Protocol):
    """Told of every run as it begins, goes on and ends."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *details: Any) -> None: ...
    def begin(self, spec: Spec) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def end(self, spec: Spec, result: dict[str, Any]) -> None: ...


def for_terminal(specs: Sequence[Spec]) -> Display:
    """The display that fits where standard error goes.

    Args:
        specs: the runs that will be done, those found finished left out.
    """
    return Live(specs) if sys.stderr.isatty() else Plain(len(specs))


def ending(result: dict[str, Any]) -> str:
    """How a run ended, in a few words."""
    if result["status"] == "failed":
        return f"failed: {result['error']}"
    if "trial" in result:  # of kdbench tune: the test set stays closed
        return f"{result['trial']}: {result['accuracy.val']:.2f} % on the validation split"
    return f"{result['accuracy.last']:.2f} % in {clock(result['seconds.train'])}, {result['cost.images_per_second']:.0f} images/s"


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _left(progress: Progress) -> float:
    return (progress.budget - progress.images) / progress.images_per_second


class Plain:
    """One line as a run begins and ends, and now and then between."""

    def __init__(self, total: int):
        self._total = total
        self._number = 0
        self._last = 0.0

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *details: Any) -> None:
        pass

    def begin(self, spec: Spec) -> None:
        self._number += 1
        self._last = time.monotonic()
        self._say(spec.id)

    def progress(self, progress: Progress) -> None:
        if time.monotonic() - self._last >= PLAIN_EVERY:
            self._last = time.monotonic()
            self._say(
                f"  epoch {progress.epoch}/{progress.epochs}, {progress.images_per_second:.0f} images/s, "
                f"{clock(_left(progress))} left"
            )

    def end(self, spec: Spec, result: dict[str, Any]) -> None:
        self._say(f"  {ending(result)}")

    def _say(self, text: str) -> None:
        print(f"[{self._number}/{self._total}] {text}", file=sys.stderr, flush=True)


class Live:
    """Two bars: all runs of the plan, and the one that trains."""

    def __init__(self, specs: Sequence[Spec]):
        self._console = Console(stderr=True, highlight=False)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._total = len(specs)
        self._done = 0
        self._began = time.monotonic()
        self._all = self._bars.add_task("runs", total=max(1, self._total), facts=f"0/{self._total}")
        self._one = self._bars.add_task("", total=1, facts="", visible=False)

    def __enter__(self) -> Live:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, spec: Spec) -> None:
        self._bars.update(self._one, description=_short(spec), completed=0, total=1, facts="preparing", visible=True)

    def progress(self, progress: Progress) -> None:
        validation = f" · val {progress.validation:.1f} %" if progress.validation is not None else ""
        facts = (
            f"epoch {progress.epoch}/{progress.epochs} · {progress.images_per_second:.0f} images/s"
            f" · {clock(_left(progress))} left{validation}"
        )
        self._bars.update(self._one, completed=progress.images, total=progress.budget, facts=facts)
        self._show_all(progress.images / progress.budget)

    def end(self, spec: Spec, result: dict[str, Any]) -> None:
        self._done += 1
        mark, style = ("✗", "red") if result["status"] == "failed" else ("✓", "green")
        self._console.print(Text.assemble((mark, style), f" {_short(spec)}  {ending(result)}"), soft_wrap=True)
        self._bars.update(self._one, visible=False)
        self._show_all(0.0)

    def _show_all(self, part: float) -> None:
        done = self._done + part
        spent = time.monotonic() - self._began
        left = (
            f" · {clock(spent / done * (self._total - done))} left" if done > 0.05 and self._done < self._total else ""
        )
        self._bars.update(self._all, completed=done, facts=f"{self._done}/{self._total}{left}")


def _short(spec: Spec) -> str:
    return f"{spec.method} {spec.dataset} {spec.student} s{spec.seed}" + (" (teacher)" if spec.is_teacher else "")
