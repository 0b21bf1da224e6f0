"""The runs of a plan that are still to be done, handed to the processes that do them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.config import places
from kdbench.config.revisions import earliest
from kdbench.plan.spec import Spec
from kdbench.store.folder import RunFolder, State


def open_runs(specs: Sequence[Spec], runs: Path, rerun: bool = False) -> list[Spec]:
    """The specs that are to be done, in order.

    A teacher that was not asked for is left out if none of its students is to be done; `rerun` does not repeat it. The same
    holds for the teachers of such a teacher.
    """
    states = {spec.id: RunFolder(runs, spec.id).state() for spec in specs}
    asked = [s for s in specs if not s.is_teacher and (rerun or states[s.id] != "finished")]
    missing = [spec for spec in specs if spec.is_teacher and states[spec.id] != "finished"]
    return teachers_of(asked, missing) + asked


def teachers_of(students: Sequence[Spec], among: Sequence[Spec]) -> list[Spec]:
    """Those `among` some specs that teach `students` or each other, in order."""
    by_id = {spec.id: spec for spec in among}
    needed: set[str] = set()
    open_ = [run for spec in students for run in spec.teacher_runs]
    while open_:
        run = open_.pop()
        if run in by_id and run not in needed:
            needed.add(run)
            open_ += by_id[run].teacher_runs
    return [spec for spec in among if spec.id in needed]


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan, and whether the plan does it.

    Attributes:
        state: state of its folder.
        to_do: whether it is trained; a finished run is repeated only on request.
    """

    spec: Spec
    state: State
    to_do: bool


def planned(specs: Sequence[Spec], runs: Path, rerun: bool = False) -> list[PlannedRun]:
    """The runs of a plan in order, each with what is to be done with it."""
    states = [RunFolder(runs, spec.id).state() for spec in specs]
    return [
        PlannedRun(spec, state, state != "finished" or (rerun and not spec.is_teacher))
        for spec, state in zip(specs, states, strict=True)
    ]


def outdated(specs: Sequence[Spec], runs: Path) -> list[Spec]:
    """The finished runs that used another version of their method's file than the current one."""
    return [spec for spec in specs if _is_outdated(spec, RunFolder(runs, spec.id))]


def _is_outdated(spec: Spec, folder: RunFolder) -> bool:
    used = folder.typed_result().get("provenance.method_sha256") if folder.state() == "finished" else None
    return used is not None and earliest(used) != earliest(places.file_sha256(places.sources()[spec.source]))


def enqueue(specs: Sequence[Spec], runs: Path, rerun: bool = False) -> None:
    """Write the runs to their folders, where the processes that do them read them."""
    for spec in specs:
        folder = RunFolder(runs, spec.id)
        failed = folder.state() == "failed"
        fresh = rerun and not spec.is_teacher
        folder.enqueue(spec.plain(), "fresh" if fresh else "resume" if failed else None)


def results(specs: Sequence[Spec], runs: Path) -> list[dict[str, Any]]:
    """The results of these runs, in order; runs without one are left out.

    A run that was trained as a teacher before is one of the comparison for a plan that asks for it.
    """
    stored = ((spec, RunFolder(runs, spec.id).typed_result()) for spec in specs)
    return [spec.identity() | result | {"purpose": spec.purpose} for spec, result in stored if "status" in result]
