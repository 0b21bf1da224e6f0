"""How long runs will take, from finished runs like them. No torch here."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from kdbench.plan.spec import Spec
from kdbench.store.folder import CONFIG, RunFolder

_EPOCHS = re.compile(r"^Train\.epochs = (\S+)$", re.MULTILINE)
_TIMES = re.compile(r"^Control\.budget = (\S+)$", re.MULTILINE)


class Past:
    """The finished runs in a folder."""

    def __init__(self, runs: Path):
        self._runs = runs
        self._alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
        for entry in sorted(os.scandir(runs), key=lambda e: e.name) if runs.is_dir() else ():
            result = RunFolder(runs, entry.name).result()
            if result and result.get("status") == "finished" and result.get("seconds.total"):
                for key in _keys(*(str(result.get(k)) for k in ("protocol", "method", "student", "dataset"))):
                    self._alike[key].append(result)

    def seconds(self, spec: Spec) -> tuple[float | None, set[str]]:
        """How long a run will take, and the finished runs that say so.

        They are those of the same protocol, method and student; else of the same protocol and student; else of the same
        dataset and student, each scaled to the budget of `spec`. None: there are none of these either.
        """
        *same, scaled = _keys(spec.protocol, spec.method, spec.student, spec.dataset)
        for key in same:
            if found := self._alike.get(key):
                return median(result["seconds.total"] for result in found), {result["run"] for result in found}
        wanted = _budget(spec.config)
        times = {r["run"]: r["seconds.total"] * wanted / self._budget_of(r["run"]) for r in self._alike.get(scaled, ())}
        times = {run: seconds for run, seconds in times.items() if math.isfinite(seconds)}
        return (median(times.values()), set(times)) if times else (None, set())

    def _budget_of(self, run: str) -> float:
        try:
            return _budget((self._runs / run / CONFIG).read_text(encoding="utf-8"))
        except OSError:
            return math.nan


def _keys(protocol: str, method: str, student: str, dataset: str) -> list[tuple[str, ...]]:
    """What runs must have in common to take equally long, the best first."""
    return [("method", protocol, method, student), ("protocol", protocol, student), ("dataset", dataset, student)]


def _budget(config: str) -> float:
    """Epochs of a configuration, those that a control adds included."""
    epochs, times = _EPOCHS.search(config), _TIMES.search(config)
    try:
        return float(epochs[1]) * float(times[1] if times else 1) if epochs else math.nan
    except ValueError:
        return math.nan


def sentence(jobs: Sequence[Sequence[Spec]], past: Past, at_once: int, units: int, unit: str) -> str:
    """What jobs will cost together, in hours of `unit`.

    Args:
        at_once: runs that a job does at a time.
        units: of these each job has so many.
    """
    total, known, runs = 0.0, 0, set()
    for job in jobs:
        seconds = [past.seconds(spec) for spec in job]
        times = [time for time, _ in seconds if time is not None]
        runs |= set().union(*(found for _, found in seconds))
        known += len(times)
        total += units * sum(times) / max(1, min(at_once, len(job))) / 3600
    every = sum(map(len, jobs))
    if not known:
        return "no estimate: no finished run like it" if every == 1 else "no estimate: no finished run like them"
    part = "" if known == every else f" for {known} of {every} runs"
    count = "1 finished run" if len(runs) == 1 else f"{len(runs)} finished runs"
    return f"estimate: {total:.2g} {unit}-hours{part}, from {count}"
