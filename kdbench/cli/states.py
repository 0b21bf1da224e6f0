"""The states of runs in words: counts, lines for a pipe, and a table for a terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kdbench.cli.run_filter import RunFilter
from kdbench.launch.progress_text import clock
from kdbench.launch.status import STATES, RunStatus
from kdbench.store import ids
from kdbench.words import printable

AT_MOST = 20
"""Rows of one state in a terminal, unless the user asked for all."""

_STYLES = {
    **{"running": "bold green", "queued": "cyan", "waiting": "cyan", "stopped": "yellow"},
    **{"cancelled": "dim", "unreadable": "bold red", "failed": "bold red", "done": "green"},
}


def counts(runs: Collection[RunStatus]) -> str:
    """The number of runs in each state, in one line."""
    number = Counter(run.state for run in runs)
    parts = [f"{number[state]} {state}" for state in STATES if number[state]]
    return f"{len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(parts)}"


def no_runs(runs: Path, run_filter: RunFilter, names: Collection[str]) -> str:
    """The sentence that takes the place of an empty list.

    Args:
        names: the ids of all runs of the folder `runs`.
    """
    if not runs.is_dir():
        return f"the folder {runs} does not exist: nothing was run here yet (kdbench run creates it, --runs DIR selects another)"
    if not names or run_filter.is_empty:
        return f"there are no runs in {runs}"
    return f"none of the {len(names)} runs in {runs} match"


def detail(run: RunStatus) -> str:
    """The facts about a run apart from its state, in one line."""
    epoch = f"epoch {run.epoch}/{run.epochs}" if run.epochs else ""
    if run.state == "running":
        speed = f"{run.images_per_second:.0f} images/s" if run.images_per_second else ""
        time_left = f"{clock(run.seconds_left)} left" if run.seconds_left is not None else ""
        job = f" (job {run.job})" if run.job else ""
        parts = [epoch or "preparing", speed, time_left, f"on {run.where}{job}", run.why]
    elif run.state == "done":
        accuracy = f"{run.accuracy:.2f} %" if run.accuracy is not None else ""
        parts = [accuracy + (f" in {clock(run.seconds)}" if run.seconds is not None else "")]
    elif run.state == "failed":
        parts = [_abridged(run.error or "")]
    else:
        parts = [f"at {epoch}" if epoch else "", run.why]
    return printable(", ".join(filter(None, parts)))


def lines(runs: Sequence[RunStatus], with_done: bool) -> list[str]:
    """The output for a pipe: the counts, and a line of any length for each run, with its whole id."""
    rows = [run for run in _in_order(runs) if with_done or run.state != "done"]
    width = max((len(printable(run.id)) for run in rows), default=0)
    widest = max((len(run.state) for run in rows), default=0)
    each = (f"{printable(run.id):<{width}}  {run.state:<{max(9, widest)}}  {detail(run)}".rstrip() for run in rows)
    return [counts(runs), *each]


def view(
    runs: Sequence[RunStatus],
    names: Collection[str],
    every: bool,
    at_most: int = AT_MOST,
    failed_at_most: int = sys.maxsize,
) -> RenderableType:
    """The output for a terminal: the counts, a table, the errors, and what to do next.

    Args:
        names: the ids of all runs of the folder; each id is shortened as far as it stays unique among them.
        every: list finished runs too, and leave no row out; otherwise:
        at_most: rows of each state.
        failed_at_most: rows of failed runs.
    """
    short = ids.short_names(names)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    errors: list[RenderableType] = []
    hidden: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for run in _in_order(runs):
        limit = {"failed": failed_at_most, "done": 0}.get(run.state, at_most)
        if not every and shown[run.state] >= limit:
            hidden[run.state] += 1
            continue
        shown[run.state] += 1
        name, state = Text(printable(short.get(run.id, run.id))), Text(run.state, _STYLES.get(run.state, ""))
        if run.state == "failed":  # a sentence, for which a column is too narrow
            errors += [Text("  ").join((name, state)), Padding(Text(detail(run)), (0, 0, 0, 4))]
        else:
            table.add_row(name, state, Text(detail(run)))
    del hidden["done"]
    body: list[RenderableType] = [table] * bool(table.row_count) + errors
    if hidden:
        numbers = ", ".join(f"{number} {state}" for state, number in hidden.items())
        body.append(Text(f"not shown: {numbers} (kdbench status state={','.join(hidden)})", "dim"))
    hints: list[RenderableType] = [Text(hint, "dim") for hint in _hints(runs, short)]
    parts: list[RenderableType] = [_coloured(counts(runs))]
    for part in (body, hints):
        parts += ["", *part] if part else []
    return Group(*parts)


def fitting(console: Console, runs: Sequence[RunStatus], names: Collection[str], every: bool) -> RenderableType:
    """The view with as many rows of each state as fit the terminal; a longer one could not be redrawn."""
    for at_most, failed in ((AT_MOST, sys.maxsize), (10, sys.maxsize), (5, 5), (3, 3), (2, 2), (1, 1), (1, 0), (0, 0)):
        candidate = view(runs, names, every, at_most, failed)
        if len(console.render_lines(candidate, pad=False)) < console.height:
            break
        every = False
    return candidate


def _hints(runs: Sequence[RunStatus], short: Mapping[str, str]) -> list[str]:
    last_first = _in_order(runs)[::-1]
    bad = next((run for run in last_first if run.state == "failed" or (run.state == "stopped" and run.job)), None)
    hints = [f"More about a run: kdbench logs {short.get(bad.id, bad.id)}"] if bad else []
    if any(run.state in ("planned", "stopped") for run in runs):
        hints.append("The same kdbench run command starts planned runs and resumes stopped ones.")
    return hints


def _in_order(runs: Sequence[RunStatus]) -> list[RunStatus]:
    def place(run: RunStatus) -> tuple[int, str, str, str, int, str]:
        seed = run.seed if run.seed is not None else -1
        return STATES.index(run.state), run.method or "", run.dataset or "", run.student or "", seed, run.id

    return sorted(runs, key=place)


def _abridged(error: str) -> str:
    """The first and the last line of a long error, which say most."""
    lines_ = [line.strip() for line in error.splitlines() if line.strip()]
    return " … ".join([lines_[0], lines_[-1]]) if len(lines_) > 2 else " ".join(lines_)


def _coloured(text: str) -> Text:
    coloured = Text(text, "bold")
    for state, style in _STYLES.items():
        coloured.highlight_regex(rf"\d+ {state}", style)
    return coloured
