"""Estimates of how long runs will take, from similar finished runs. No torch here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from kdbench.config import run_config
from kdbench.config.run_config import RunConfig
from kdbench.errors import UserError
from kdbench.plan.spec import Spec
from kdbench.store.folder import CONFIG, RunFolder
from kdbench.store.ids import run_ids


class Past:
    """The finished runs in a folder, and how long they took."""

    def __init__(self, runs: Path):
        self._runs = runs
        self._alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
        self._budgets: dict[str, float] = {}
        for run in run_ids(runs):
            result = RunFolder(runs, run).typed_result() | {"run": run}
            if result.get("status") == "finished" and result.get("seconds.total"):
                for key in _keys(*(str(result.get(k)) for k in ("protocol", "method", "student", "dataset"))):
                    self._alike[key].append(result)

    def seconds(self, spec: Spec) -> tuple[float | None, set[str]]:
        """The seconds that a run will take, and the ids of the finished runs that this estimate comes from.

        These are runs of the same protocol, method and student; else of the same protocol and student; else of the same
        dataset and student, each scaled to the budget of `spec`. The seconds are None if there are none of these either.
        """
        *same, scaled = _keys(spec.protocol, spec.method, spec.student, spec.dataset)
        for key in same:
            if results := self._alike.get(key):
                return median(result["seconds.total"] for result in results), {result["run"] for result in results}
        if not self._alike.get(scaled):
            return None, set()
        wanted = _budget(run_config.parse(spec.config, spec.id))
        times = {r["run"]: r["seconds.total"] * wanted / self._budget_of(r["run"]) for r in self._alike[scaled]}
        times = {run: seconds for run, seconds in times.items() if math.isfinite(seconds)}
        return (median(times.values()), set(times)) if times else (None, set())

    def _budget_of(self, run: str) -> float:
        """The budget of a finished run; not a number where its configuration cannot be read."""
        if run not in self._budgets:
            try:
                self._budgets[run] = _budget(run_config.read(self._runs / run / CONFIG))
            except (OSError, UserError):
                self._budgets[run] = math.nan
        return self._budgets[run]


def _keys(protocol: str, method: str, student: str, dataset: str) -> list[tuple[str, ...]]:
    """Properties that runs must share to take equally long, the best criterion first."""
    return [("method", protocol, method, student), ("protocol", protocol, student), ("dataset", dataset, student)]


def _budget(config: RunConfig) -> float:
    """The epochs of a configuration, including those that a control adds; not a number if it has none."""
    try:
        return float(config.values["Train.epochs"]) * float(config.values.get("Control.budget", 1))
    except (KeyError, TypeError, ValueError):
        return math.nan


def sentence(jobs: Sequence[Sequence[Spec]], past: Past, at_once: int, units: int, unit: str) -> str:
    """The total cost of jobs, in hours of `unit`.

    Args:
        jobs: the runs of each job.
        at_once: runs that a job does in parallel.
        units: how many of `unit` each job has.
        unit: "GPU" or "CPU".
    """
    hours, estimated, similar = 0.0, 0, set()
    for job in jobs:
        estimates = [past.seconds(spec) for spec in job]
        times = [seconds for seconds, _ in estimates if seconds is not None]
        similar |= set().union(*(runs for _, runs in estimates))
        estimated += len(times)
        hours += units * sum(times) / max(1, min(at_once, len(job))) / 3600
    total = sum(map(len, jobs))
    if not estimated:
        return "no estimate: no finished run like it" if total == 1 else "no estimate: no finished run like them"
    part = "" if estimated == total else f" for {estimated} of {total} runs"
    count = "1 finished run" if len(similar) == 1 else f"{len(similar)} finished runs"
    return f"estimate: {hours:.2g} {unit}-hours{part}, from {count}"
