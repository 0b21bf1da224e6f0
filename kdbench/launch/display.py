"""Progress of runs: live bars in a terminal, one updated display in a notebook, plain lines on standard error elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from kdbench.launch.progress_text import clock, ending, facts, measured, overall, seconds_left, short
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
    """The display for standard error, or for the output of a notebook's cell.

    Args:
        specs: the runs to do.
        runs: the folder of the runs, for the path of a failed run's log; None where they have no folders.
    """
    if _is_notebook():
        return Notebook(specs, runs)
    return Live(specs, runs) if sys.stderr.isatty() else Plain(len(specs), runs)


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
                self._say(spec, f"  trained; {measured(progress)}")
                return
            self._say(
                spec,
                f"  epoch {progress.epoch}/{progress.epochs}, {progress.images_per_second:.0f} images/s, "
                f"{clock(seconds_left(progress))} left",
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
            self._running[spec.id] = self._bars.add_task(short(spec), total=1, facts="preparing")

    def progress(self, spec: Spec, progress: Progress) -> None:
        self._bars.update(
            self._running[spec.id], completed=progress.images, total=progress.budget, facts=facts(progress)
        )
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
        self._console.print(Text.assemble(("–", "yellow"), printable(f" {short(spec)}  {why}")), soft_wrap=True)

    def _close(self, spec: Spec, mark: str, style: str, text: str) -> None:
        self._console.print(Text.assemble((mark, style), printable(f" {short(spec)}  {text}")), soft_wrap=True)
        if spec.id in self._running:
            self._bars.remove_task(self._running.pop(spec.id))
        self._parts.pop(spec.id, None)
        self._show_all()

    def _show_all(self) -> None:
        done = self._done + sum(self._parts.values())
        self._bars.update(self._all, completed=done, facts=overall(done, self._done, self._total, self._began))


class Notebook:
    """One text in the output of a notebook's cell, updated in place: finished runs, a bar for each running one, and the total."""

    EVERY = 0.25
    """Seconds between two updates that only show progress."""
    LINES = 100
    """Lines about ended runs at most; of more, the latest."""

    def __init__(self, specs: Sequence[Spec], runs: Path | None = None):
        self._runs = runs
        self._total = len(specs)
        self._done = 0
        self._began = time.monotonic()
        self._lines: list[str] = []
        self._running: dict[str, tuple[str, float, str]] = {}
        self._handle: Any = None
        self._shown = -math.inf

    def __enter__(self) -> Notebook:
        display: Any = import_module("IPython.display").display  # not typed, and only there in a notebook
        self._handle = display({"text/plain": self._text()}, raw=True, display_id=True)
        return self

    def __exit__(self, *details: Any) -> None:
        self._running.clear()
        self._show()

    def begin(self, spec: Spec) -> None:
        self._running.setdefault(spec.id, (short(spec), 0.0, "preparing"))
        self._show()

    def progress(self, spec: Spec, progress: Progress) -> None:
        self._running[spec.id] = short(spec), progress.images / progress.budget, facts(progress)
        if time.monotonic() - self._shown >= self.EVERY:
            self._show()

    def end(self, spec: Spec, result: dict[str, Any]) -> None:
        self._done += 1
        self._close(spec, "✗" if result["status"] == "failed" else "✓", ending(result, self._runs))

    def left(self, spec: Spec, why: str) -> None:
        self._close(spec, "–", why)

    def note(self, text: str) -> None:
        self._lines.append(printable(text))
        self._show()

    def waits(self, spec: Spec, why: str) -> None:
        self.note(f"– {short(spec)}  {why}")

    def _close(self, spec: Spec, mark: str, text: str) -> None:
        self._running.pop(spec.id, None)
        self.note(f"{mark} {short(spec)}  {text}")

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._handle.update({"text/plain": self._text()}, raw=True)

    def _text(self) -> str:
        done = self._done + sum(part for _, part, _ in self._running.values())
        whole = "runs", done / max(1, self._total), overall(done, self._done, self._total, self._began)
        bars = [whole, *self._running.values()]
        width = max(len(name) for name, *_ in bars)
        drawn = [f"{name:<{width}} {_bar(part)} {text}" for name, part, text in bars]
        return "\n".join([*self._lines[-self.LINES :], *drawn])


def _is_notebook() -> bool:
    """True inside a Jupyter kernel, whose front end shows what is displayed; False in IPython's terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


def _bar(part: float, width: int = 24) -> str:
    full = round(part * width)
    return "━" * full + "─" * (width - full)
