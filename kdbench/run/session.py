"""Costs of a run: those of one process, and of all processes that worked on it together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.measures import energy, load
from kdbench.measures.cost import PeakMemory
from kdbench.run import arithmetic
from kdbench.run.loop.state import Outcome

_FACTS = (
    "torch", "device", "cpu", "gpus", "runs_per_gpu", "threads", "instructions", "compile", "compile_mode", "deterministic",
    "variables",
)  # fmt: skip
_MACHINE = tuple(f"provenance.{fact}" for fact in _FACTS)


class Session:
    """The part of this process in a run: seconds, peak memory, energy, start and commit.

    Args:
        began: when it began, by `time.perf_counter`.
        peak, used, others: watch memory, energy, and the CPU time of other processes; None: not measured.
        provenance: the `provenance.*` entries of the result.
    """

    def __init__(
        self,
        began: float,
        peak: PeakMemory,
        used: energy.Energy,
        others: load.OtherProcesses | None,
        provenance: Mapping[str, Any],
    ):
        self._began, self._peak, self._used, self._others, self._provenance = began, peak, used, others, provenance
        self._training: dict[str, Any] = {}
        self._trained = began

    def training_is_over(self) -> None:
        """Memory, energy and load are those of training; the evaluation begins."""
        self._trained = time.perf_counter()
        self._training = self._measured()

    def entries(self) -> dict[str, Any]:
        """This session so far, as the state of training keeps it for the process that resumes."""
        return {
            **(self._training or self._measured()),
            "seconds": time.perf_counter() - self._began,
            "started_at": self._provenance["provenance.started_at"],
            "commit": self._provenance["provenance.commit"],
            "machine": self._machine(),
        }

    def _machine(self) -> dict[str, Any]:
        """The facts of provenance that change a result's bits, as they are now: a method's code may set PyTorch's settings."""
        settings = {"provenance.arithmetic": arithmetic.settings()}
        return {**{key: self._provenance[key] for key in _MACHINE if key in self._provenance}, **settings}

    def _measured(self) -> dict[str, Any]:
        return {
            "watched": time.perf_counter() - self._began,
            "peak": self._peak.bytes(),
            "resident": self._peak.resident_bytes(),
            "joules": self._used.joules(),
            "others": self._others.seconds() if self._others else None,
        }

    def result(self, before: Sequence[Mapping[str, Any]], outcome: Outcome) -> dict[str, Any]:
        """The entries of the result that tell what the run cost and where it comes from, when everything is measured.

        Args:
            before: the sessions of the processes that worked on the run before, the first one first.
        """
        now = time.perf_counter()
        sessions = [*before, self._training]
        return {
            "images_seen": outcome.images_seen,
            **(outcome.passes or {}),
            "seconds.train": round(outcome.seconds, 3),
            "seconds.evaluate": round(now - self._trained, 3),
            "seconds.total": round(now - self._began + sum(session["seconds"] for session in before), 3),
            "cost.peak_memory_bytes": max(session["peak"] for session in sessions),
            "cost.peak_resident_bytes": max(session.get("resident", 0) for session in sessions) or None,
            "cost.energy_joules": energy.total([session.get("joules") for session in sessions]),
            "cost.images_per_second": round(outcome.images_seen / outcome.seconds, 1),
            **self._provenance,
            **self._machine(),
            "provenance.load": load.mean_cores(sessions),
            **self._history(before),
        }

    def _history(self, before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The history of a run that several processes worked on: how many, since when, and at which commits."""
        if not before:
            return {}
        commits = dict.fromkeys([*(session["commit"] for session in before), self._provenance["provenance.commit"]])
        named = [commit for commit in commits if commit]  # an installed wheel has none
        machines = [self._machine(), *(session["machine"] for session in before if "machine" in session)]
        mixed = [key for key in machines[0] if len({machine.get(key) for machine in machines}) > 1]
        return {
            "provenance.sessions": len(before) + 1,
            "provenance.started_at": before[0]["started_at"],
            **({"provenance.commits": " ".join(named)} if named else {}),
            **({"provenance.mixed": " ".join(key.partition(".")[2] for key in mixed)} if mixed else {}),
        }
