"""What state runs are in: read from their folders, and for those that are in a SLURM job from its queue. No torch here.

Nothing is written, nothing is remembered: the folders are all there is, and whoever sees them sees the same.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.launch.slurm.queue import Job, Slurm
from kdbench.store import folder as folder_
from kdbench.store import lease
from kdbench.store.folder import RunFolder
from kdbench.store.ids import run_ids
from kdbench.store.lease import Owner

STATES = ("running", "queued", "waiting", "stopped", "planned", "cancelled", "failed", "done")
"""In the order in which they are shown."""
ENDED = ("cancelled", "failed", "done")
"""What stays so until the user asks for something."""


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        id: its folder's name.
        state: one of `STATES`.
        why: for the user: why it is queued, waiting, stopped, or what will become of it.
        method, dataset, student, teacher, teacher_run, recipe, seed: of its spec; None where no file says it.
        epoch, epochs: where it is, or was when it stopped.
        images_per_second, seconds_left: of a run that is running.
        where: the machine that does it.
        job: the SLURM job that it is in, or was.
        accuracy: percent, on the test set, after the last epoch.
        seconds: of training.
        error: of a failed run.
    """

    id: str
    state: str
    why: str | None = None
    method: str | None = None
    dataset: str | None = None
    student: str | None = None
    teacher: str | None = None
    teacher_run: str | None = None
    recipe: str | None = None
    seed: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    where: str | None = None
    job: str | None = None
    accuracy: float | None = None
    seconds: float | None = None
    error: str | None = None


_IDENTITY = ("method", "dataset", "student", "teacher", "teacher_run", "recipe", "seed")


def read(runs: Path, ids: Iterable[str] | None = None, slurm: Slurm | None = None) -> list[Run]:
    """The states of runs, in order of their ids; a folder that holds no run is left out.

    Args:
        ids: the folders that are read; None for all.
        slurm: who is asked about jobs; None: nobody.
    """
    wanted = run_ids(runs) if ids is None else sorted(ids)
    looks = {id_: look for id_ in wanted if (look := _look(runs, id_))}
    teachers = {look.teacher_run for look in looks.values() if look.is_open and look.teacher_run}
    others = {id_: look for id_ in teachers - looks.keys() if (look := _look(runs, id_))}
    every = {**looks, **others}
    if slurm:
        slurm.look({look.job: look.user for look in every.values() if look.job and look.is_open})
    slurm = slurm or Slurm()
    taught_by = {id_: _run(every[id_], slurm, None) for id_ in teachers & every.keys()}
    return [_run(look, slurm, taught_by.get(look.teacher_run or "")) for look in looks.values()]


@dataclass(frozen=True)
class _Look:
    """What the files of a run's folder say."""

    id: str
    names: frozenset[str]
    says: Mapping[str, Any]
    result: Mapping[str, Any]
    progress: Mapping[str, Any]
    owner: Owner | None
    job: str | None
    user: int

    @property
    def is_open(self) -> bool:
        return not self.result or (folder_.AGAIN in self.names and folder_.CANCELLED not in self.names)

    @property
    def has_begun(self) -> bool:
        return folder_.CONFIG in self.names and folder_.AGAIN not in self.names

    @property
    def teacher_run(self) -> str | None:
        return self.says.get("teacher_run")


def _look(runs: Path, id_: str) -> _Look | None:
    folder = RunFolder(runs, id_)
    try:
        names = frozenset(os.listdir(folder.path))
    except OSError:  # gone meanwhile, or not ours
        return None
    if not names & {folder_.SPEC, folder_.CONFIG, folder_.RESULT}:
        return None

    def content(name: str) -> dict[str, Any]:
        return (folder.read(name) or {}) if name in names else {}

    result = content(folder_.RESULT)
    status = result.get("status")
    if status != "failed" and not (status == "finished" and folder_.CHECKPOINT in names):
        result = {}  # as RunFolder.state has it
    if result:
        result["teacher_run"] = result.get("teacher.run")
    if result and folder_.AGAIN not in names:  # most folders of a large sweep: one file is enough
        return _Look(id_, names, result, result, {}, None, None, 0)
    says = content(folder_.SPEC) or result or _command(folder)
    submission = content(folder_.SUBMISSION)
    job = str(submission["job"]) if submission.get("job") else None
    user = (folder / folder_.SUBMISSION).stat().st_uid if job else 0
    owner = lease.owner(folder.path) if any(name.startswith("lease.") for name in names) else None
    return _Look(id_, names, says, result, content(folder_.PROGRESS), owner, job, user)


def _command(folder: RunFolder) -> dict[str, Any]:
    """What the first line of a run's configuration says, for folders that have no more."""
    try:
        with (folder / folder_.CONFIG).open(encoding="utf-8") as file:
            words = dict(word.split("=", 1) for word in shlex.split(file.readline()) if "=" in word)
        return {**words, "method": words.get("methods"), "seed": int(words["seeds"])}
    except (OSError, ValueError, KeyError):
        return {}


def _run(look: _Look, slurm: Slurm, teacher: Run | None) -> Run:
    facts: dict[str, Any] = {key: look.says.get(key) for key in _IDENTITY}
    if not look.is_open:
        result = look.result
        if result["status"] == "failed":
            return Run(look.id, "failed", error=str(result.get("error")), **facts)
        return Run(look.id, "done", accuracy=result.get("accuracy.last"), seconds=result.get("seconds.train"), **facts)
    facts |= {key: look.progress.get(key) for key in ("epoch", "epochs")}
    if look.owner and not slurm.is_pending(look.owner.job):  # else it died with its node, and its job is to begin again
        measured = look.progress.get("measured")
        why = None if measured is None else f"measuring, {measured:.0%} done"
        why = "stops, because it was cancelled" if folder_.CANCELLED in look.names else why
        job = (look.job or look.owner.job) if look.owner.job else None
        return Run(look.id, "running", why, where=look.owner.host, job=job, **facts, **_speed(look.progress))
    state, why = _of_nobody(look, slurm.job(look.job) if look.job else None, teacher)
    return Run(look.id, state, why, job=look.job, **facts)


def _speed(progress: Mapping[str, Any]) -> dict[str, Any]:
    if not progress.get("images_per_second"):
        return {}
    speed = progress["images_per_second"]
    return {"images_per_second": speed, "seconds_left": (progress["budget"] - progress["images"]) / speed}


def _of_nobody(look: _Look, job: Job | None, teacher: Run | None) -> tuple[str, str | None]:
    """State and reason of a run that has not ended and that nobody does now."""
    if folder_.CANCELLED in look.names:
        return "cancelled", None
    if look.job and job is None:
        return "stopped" if look.has_begun else "queued", f"submitted as job {look.job}; squeue does not answer here"
    if job and job.is_pending:
        return "queued", f"job {job.id}: {job.reason}"
    if job and job.is_over:
        how = "is ending" if job.in_queue else "is gone"
        return "stopped", f"job {job.id}: {job.state}" if job.state and not job.in_queue else f"job {job.id} {how}"
    if teacher and teacher.state not in ("failed", "done") and not look.has_begun:
        return "waiting", f"for its teacher ({look.says.get('teacher')}), which is {teacher.state}"
    if job:
        return "queued", f"job {job.id} is {job.state.lower()}{_on(job.nodes)} and has not come to it"
    if look.has_begun:
        return "stopped", _ago(look.progress)
    return "planned", "again" if look.result else None


def _on(nodes: str) -> str:
    return f" on {nodes}" if nodes else ""


def _ago(progress: Mapping[str, Any]) -> str | None:
    if "at" not in progress:
        return None
    seconds = time.time() - progress["at"]
    for size, word in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {word} ago"
    return "a moment ago"
