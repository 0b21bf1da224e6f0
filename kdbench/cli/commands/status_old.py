"""`kdbench status`: how the states of runs are shown. No torch here."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kdbench.cli import selection
from kdbench.launch import status
from kdbench.launch.display import clock
from kdbench.launch.slurm.queue import Slurm
from kdbench.launch.status import ENDED, STATES, Run
from kdbench.store import ids

EVERY = 2.0
"""Seconds between two looks of `--watch`."""
AT_MOST = 20
"""Rows of one state in a terminal, unless the user asked for all."""

_STYLES = {
    **{"running": "bold green", "queued": "cyan", "waiting": "cyan", "stopped": "yellow"},
    **{"cancelled": "dim", "failed": "bold red", "done": "green"},
}


def show(words: Sequence[str], runs: Path, everything: bool = False, watch: bool = False, as_json: bool = False) -> int:
    """Print the states of the selected runs.

    Args:
        words: the selection.
        everything: show each finished run too; a selection does.
        watch: go on until no run is left that has not ended.

    Returns:
        1 if one of them failed, else 0.

    Raises:
        UserError: a word of the selection that means nothing.
    """
    selected = selection.parse(words)
    everything = everything or not selected.is_empty
    slurm = Slurm()

    def look() -> list[Run]:
        return selected.chosen(status.read(runs, selected.ids(runs), slurm))

    names = ids.run_ids(runs)
    found = look() if names else []
    if as_json:
        print(json.dumps([asdict(run) for run in found], indent=1))
    elif not found:
        print(nothing(runs, selected, names))
    elif watch:
        found = _watch(look, found, names, everything)
    else:
        console = Console(highlight=False)
        if console.is_terminal:
            console.print(view(found, names, everything))
        else:
            for line in lines(found, everything):
                print(line)
    return int(any(run.state == "failed" for run in found))


def counts(runs: Collection[Run]) -> str:
    """How many runs are in each state, in one line."""
    number = Counter(run.state for run in runs)
    parts = [f"{number[state]} {state}" for state in STATES if number[state]]
    return f"{len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(parts)}"


def lines(runs: Sequence[Run], everything: bool) -> list[str]:
    """What goes into a pipe: whole ids and one line a run, whose length nobody cares about."""
    rows = [run for run in _in_order(runs) if everything or run.state != "done"]
    width = max((len(run.id) for run in rows), default=0)
    return [counts(runs), *(f"{run.id:<{width}}  {run.state:<9}  {detail(run)}".rstrip() for run in rows)]


def view(
    runs: Sequence[Run],
    names: Collection[str],
    everything: bool,
    at_most: int = AT_MOST,
    failed_at_most: int = sys.maxsize,
) -> RenderableType:
    """What a terminal shows: the counts, a table, the errors, and what to do next.

    Args:
        names: the ids of all runs of the folder, among which an id is shortened.
        everything: finished runs are rows too, and no row is left out.
        at_most, failed_at_most: otherwise, rows of each state, and failed runs.
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
        most = {"failed": failed_at_most, "done": 0}.get(run.state, at_most)
        if not everything and shown[run.state] >= most:
            hidden[run.state] += 1
            continue
        shown[run.state] += 1
        name, state = Text(short.get(run.id, run.id)), Text(run.state, _STYLES.get(run.state, ""))
        if run.state == "failed":  # a sentence, for which a column is too narrow
            errors += [Text("  ").join((name, state)), Padding(Text(detail(run)), (0, 0, 0, 4))]
        else:
            table.add_row(name, state, Text(detail(run)))
    del hidden["done"]
    rest = ", ".join(f"{number} {state}" for state, number in hidden.items())
    body: list[RenderableType] = [table] * bool(table.row_count) + errors
    if rest:
        body.append(Text(f"not shown: {rest} (kdbench status state={','.join(hidden)})", "dim"))
    hints: list[RenderableType] = [Text(hint, "dim") for hint in _hints(runs, short)]
    parts: list[RenderableType] = [_coloured(counts(runs))]
    for part in (body, hints):
        parts += ["", *part] if part else []
    return Group(*parts)


def _hints(runs: Sequence[Run], short: Mapping[str, str]) -> list[str]:
    ordered = _in_order(runs)[::-1]
    bad = next((run for run in ordered if run.state == "failed" or (run.state == "stopped" and run.job)), None)
    hints = [f"More of a run: kdbench logs {short.get(bad.id, bad.id)}"] if bad else []
    if any(run.state in ("planned", "stopped") for run in runs):
        hints.append("Planned and stopped runs go on with the same kdbench run command.")
    return hints


def detail(run: Run) -> str:
    """What there is to say of a run besides its state, in one line."""
    at = f"epoch {run.epoch}/{run.epochs}" if run.epochs else ""
    if run.state == "running":
        speed = f"{run.images_per_second:.0f} images/s" if run.images_per_second else ""
        left = f"{clock(run.seconds_left)} left" if run.seconds_left is not None else ""
        job = f" (job {run.job})" if run.job else ""
        parts = [at or "preparing", speed, left, f"on {run.where}{job}", run.why]
    elif run.state == "done":
        accuracy = f"{run.accuracy:.2f} %" if run.accuracy is not None else ""
        parts = [accuracy + (f" in {clock(run.seconds)}" if run.seconds is not None else "")]
    elif run.state == "failed":
        parts = [_few_lines(run.error or "")]
    else:
        parts = [f"at {at}" if at else "", run.why]
    return ", ".join(filter(None, parts))


def _in_order(runs: Sequence[Run]) -> list[Run]:
    def place(run: Run) -> tuple[int, str, str, str, int, str]:
        seed = run.seed if run.seed is not None else -1
        return STATES.index(run.state), run.method or "", run.dataset or "", run.student or "", seed, run.id

    return sorted(runs, key=place)


def _few_lines(error: str) -> str:
    """An error of many lines says what it is in its first and its last ones."""
    found = [line.strip() for line in error.splitlines() if line.strip()]
    return " … ".join([found[0], found[-1]]) if len(found) > 2 else " ".join(found)


def _coloured(text: str) -> Text:
    found = Text(text, "bold")
    for state, style in _STYLES.items():
        found.highlight_regex(rf"\d+ {state}", style)
    return found


def nothing(runs: Path, selected: selection.Selection, names: Collection[str]) -> str:
    """What is said where no run is shown."""
    if not runs.is_dir():
        return f"there is no folder {runs}: nothing was run here yet (kdbench run makes it, --runs DIR names another)"
    if not names or selected.is_empty:
        return f"there are no runs in {runs}"
    return f"none of the {len(names)} runs in {runs} is meant by that"


def _watch(look: Callable[[], list[Run]], found: list[Run], names: Collection[str], everything: bool) -> list[Run]:
    """Show what `look` finds until all runs have ended or the user has seen enough; returns what was seen last."""
    console = Console(highlight=False)
    try:
        if not console.is_terminal:
            said = ""
            while True:
                if said != counts(found):
                    said = counts(found)
                    print(said, flush=True)
                if all(run.state in ENDED for run in found):
                    return found
                time.sleep(EVERY)
                found = look()
        with Live(_fitting(console, found, names, everything), console=console, auto_refresh=False) as live:
            while not all(run.state in ENDED for run in found):
                time.sleep(EVERY)
                found = look()
                names = {*names, *(run.id for run in found)}
                live.update(_fitting(console, found, names, everything), refresh=True)
    except KeyboardInterrupt:  # what is done does not depend on who watches
        pass
    return found


def _fitting(console: Console, runs: Sequence[Run], names: Collection[str], everything: bool) -> RenderableType:
    """The view with as many rows of each state as the terminal has room for; it cannot be redrawn beyond that."""
    for at_most, failed in ((AT_MOST, sys.maxsize), (10, sys.maxsize), (5, 5), (3, 3), (2, 2), (1, 1), (1, 0), (0, 0)):
        shown = view(runs, names, everything, at_most, failed)
        if len(console.render_lines(shown, pad=False)) < console.height:
            break
        everything = False
    return shown
