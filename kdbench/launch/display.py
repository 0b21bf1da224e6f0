"""Progress of runs on standard error: live bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from kdbench.store.folder import LOG
from kdbench.words import printable

if TYPE_CHECKING:
    from kdbench.plan.spec import Spec
    from kdbench.run.caller import Progress

PLAIN_EVERY = 30.0
"""Seconds between two lines about one run outside a terminal."""


class Display(Protocol):
    """Receives the events of all runs: each waits, begins, progresses, and ends or is left unfinished; several may run at once.

    A note concerns no single run.
    """

    def __enter__(self) -> Display: ...
    def __exit__(self, *details: Any) -> None: ...
    def begin(self, spec: Spec) -> None: ...
    def progress(self, spec: Spec, progress: Progress) -> None: ...
    def end(self, spec: Spec, result: dict[str, Any]) -> None: ...
    def left(self, spec: Spec, why: str) -> None: ...
    def note(self, text: str) -> None: ...
    def waits(self, spec: Spec, why: str) -> None: ...


def for_terminal(specs: Sequence[Spec], runs: Path | None = None) -> Display:
    """The display for standard error.

    Args:
        specs: the runs to do.
        runs: the folder of the runs, for the path of a failed run's log; None where they have no folders.
    """
    return Live(specs, runs) if sys.stderr.isatty() else Plain(len(specs), runs)


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


def _left(progress: Progress) -> float:
    return (progress.budget - progress.images) / progress.images_per_second


def _measured(progress: Progress) -> str:
    return f"measuring, {progress.measured:.0%} done"


class Plain:
    """One line when a run begins, one when it ends, and one every `PLAIN_EVERY` seconds between."""

    def __init__(self, total: int, runs: Path | None = None):
        self._runs = runs
        self._total = total
        self._begun = 0
        self._numbers: dict[str, int] = {}
        self._last: dict[str, float] = {}

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *details: Any) -> None:
        pass

    def begin(self, spec: Spec) -> None:
        if spec.id not in self._numbers:
            self._begun += 1
            self._numbers[spec.id] = self._begun
        self._last[spec.id] = time.monotonic()
        self._say(spec, spec.id)

    def progress(self, spec: Spec, progress: Progress) -> None:
        if time.monotonic() - self._last[spec.id] >= PLAIN_EVERY:
            self._last[spec.id] = time.monotonic()
            if progress.measured is not None:
                self._say(spec, f"  trained; {_measured(progress)}")
                return
            self._say(
                spec,
                f"  epoch {progress.epoch}/{progress.epochs}, {progress.images_per_second:.0f} images/s, "
                f"{clock(_left(progress))} left",
            )

    def end(self, spec: Spec, result: dict[str, Any]) -> None:
        self._say(spec, f"  {ending(result, self._runs)}")

    def left(self, spec: Spec, why: str) -> None:
        self._say(spec, f"  {why}")

    def note(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    def waits(self, spec: Spec, why: str) -> None:
        self.note(f"{spec.id}: {why}")  # without a number, which a run gets when it begins

    def _say(self, spec: Spec, text: str) -> None:
        text = printable(text)
        print(f"[{self._numbers.get(spec.id, '-')}/{self._total}] {text}", file=sys.stderr, flush=True)


class Live:
    """A bar for the plan, and one for each running run."""

    def __init__(self, specs: Sequence[Spec], runs: Path | None = None):
        self._runs = runs
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
        self._running: dict[str, TaskID] = {}
        self._parts: dict[str, float] = {}

    def __enter__(self) -> Live:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, spec: Spec) -> None:
        if spec.id not in self._running:
            self._running[spec.id] = self._bars.add_task(_short(spec), total=1, facts="preparing")

    def progress(self, spec: Spec, progress: Progress) -> None:
        validation = f" · val {progress.validation:.1f} %" if progress.validation is not None else ""
        facts = (
            f"epoch {progress.epoch}/{progress.epochs} · {progress.images_per_second:.0f} images/s"
            f" · {clock(_left(progress))} left{validation}"
        )
        if progress.measured is not None:
            facts = _measured(progress)
        self._bars.update(self._running[spec.id], completed=progress.images, total=progress.budget, facts=facts)
        self._parts[spec.id] = progress.images / progress.budget
        self._show_all()

    def end(self, spec: Spec, result: dict[str, Any]) -> None:
        self._done += 1
        mark, style = ("✗", "red") if result["status"] == "failed" else ("✓", "green")
        self._close(spec, mark, style, ending(result, self._runs))

    def left(self, spec: Spec, why: str) -> None:
        self._close(spec, "–", "yellow", why)

    def note(self, text: str) -> None:
        self._console.print(Text(printable(text)), soft_wrap=True)

    def waits(self, spec: Spec, why: str) -> None:
        self._console.print(Text.assemble(("–", "yellow"), printable(f" {_short(spec)}  {why}")), soft_wrap=True)

    def _close(self, spec: Spec, mark: str, style: str, text: str) -> None:
        self._console.print(Text.assemble((mark, style), printable(f" {_short(spec)}  {text}")), soft_wrap=True)
        if spec.id in self._running:
            self._bars.remove_task(self._running.pop(spec.id))
        self._parts.pop(spec.id, None)
        self._show_all()

    def _show_all(self) -> None:
        done = self._done + sum(self._parts.values())
        spent = time.monotonic() - self._began
        left = (
            f" · {clock(spent / done * (self._total - done))} left" if done > 0.05 and self._done < self._total else ""
        )
        self._bars.update(self._all, completed=done, facts=f"{self._done}/{self._total}{left}")


def _short(spec: Spec) -> str:
    return f"{spec.method} {spec.dataset} {spec.student} s{spec.seed}" + (" (teacher)" if spec.is_teacher else "")
