"""The states of runs, read from their folders, and from SLURM for those that are in a job. No torch here.

Nothing is written or cached: the folders are the only record, so that every process reads the same states.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kdbench import words as words_
from kdbench.config import run_config
from kdbench.errors import UserError, reason
from kdbench.files import AT_MOST, open_regular
from kdbench.launch import logs
from kdbench.launch.slurm.queue import QueuedJob, SlurmQueue
from kdbench.plan.request import PLAN_KEYS
from kdbench.plan.spec import is_run_name
from kdbench.store import folder as folder_
from kdbench.store import lease
from kdbench.store.folder import RunFolder
from kdbench.store.ids import run_ids
from kdbench.store.owner import Owner
from kdbench.store.result import LARGEST

STATES = ("running", "queued", "waiting", "stopped", "planned", "cancelled", "unreadable", "failed", "done")
"""All states, in the order in which they are listed; a run is unreadable if a file of its folder is not what kdbench writes."""
ENDED = ("cancelled", "unreadable", "failed", "done")
"""States that last until the user requests the run again."""


@dataclass(frozen=True)
class RunStatus:
    """The state of a run, and the facts that `kdbench status` reports with it.

    Attributes:
        id: name of the run's folder.
        state: one of `STATES`.
        why: reason for the state, in words for the user.
        method, dataset, student, teacher, recipe, seed: fields of its spec; None where no file records them.
        teacher_runs: ids of the runs of its teachers.
        epoch, epochs: current epoch, or the last one before it stopped, and number of epochs.
        images_per_second, seconds_left: speed and time left of a running run.
        where: host of the process that does it.
        job: its current or last SLURM job.
        accuracy: test accuracy after the last epoch, in percent.
        seconds: training time.
        error: error message of a failed run.
    """

    id: str
    state: str
    why: str | None = None
    method: str | None = None
    dataset: str | None = None
    student: str | None = None
    teacher: str | None = None
    teacher_runs: tuple[str, ...] = ()
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


_IDENTITY = ("method", "dataset", "student", "teacher", "recipe", "seed")


def read(runs: Path, ids: Iterable[str] | None = None, queue: SlurmQueue | None = None) -> list[RunStatus]:
    """The states of runs, in order of their ids; folders that are not runs are left out.

    Args:
        ids: the folders to read; None for all.
        queue: SLURM's queue; None does not query SLURM.
    """
    selected = run_ids(runs) if ids is None else sorted(ids)
    records = {id_: record for id_ in selected if (record := _record(runs, id_))}
    every = dict(records)
    open_ = [run for record in records.values() if record.is_open for run in record.teacher_runs]
    while open_:  # a teacher may have teachers
        id_ = open_.pop()
        if id_ not in every and (record := _record(runs, id_)):
            every[id_] = record
            open_ += record.teacher_runs if record.is_open else ()
    if queue:
        queue.look({record.job: record.user for record in every.values() if record.job and record.is_open})
    queue = queue or SlurmQueue()
    leased = [RunFolder(runs, record.id).path for record in every.values() if record.is_open and record.has_lease]
    owners = {path.name: owner for path, owner in lease.owners(leased).items()}

    @cache
    def now() -> float:
        return lease.now(runs)

    statuses: dict[str, RunStatus] = {}
    for id_ in _teachers_first(every):
        record = every[id_]
        teachers = [statuses[run] for run in record.teacher_runs if run in statuses] if record.is_open else []
        busy = next((each for each in teachers if each.state not in ("failed", "done")), None)
        statuses[id_] = _status(record, owners.get(id_), queue, busy, now)
    return [statuses[id_] for id_ in records]


def _teachers_first(records: Mapping[str, _Record]) -> list[str]:
    """The ids of records, each after its teachers; files may also describe a circle, which is cut somewhere."""
    order: list[str] = []
    seen: set[str] = set()
    stack = [(id_, False) for id_ in records]
    while stack:
        id_, is_after_its_teachers = stack.pop()
        if is_after_its_teachers:
            order.append(id_)
        elif id_ not in seen:
            seen.add(id_)
            stack.append((id_, True))
            stack += [(run, False) for run in records[id_].teacher_runs if run in records]
    return order


@dataclass(frozen=True)
class _Record:
    """The files of a run's folder.

    Attributes:
        names: names of all its files.
        identity: method, dataset and so on, from the first file that has them.
        progress_at: when `progress` was written, by the clock of the file system.
        user: number of the user who submitted `job`.
        log: the log of `job`.
        defect: why the folder cannot be read, if that is so.
    """

    id: str
    names: frozenset[str]
    identity: Mapping[str, Any]
    result: Mapping[str, Any]
    progress: Mapping[str, Any]
    progress_at: float | None
    job: str | None
    user: int
    log: Path | None = None
    defect: str = ""

    @property
    def has_lease(self) -> bool:
        return any(name.startswith("lease.") for name in self.names)

    @property
    def is_open(self) -> bool:
        if self.defect:
            return False
        return not self.result or (folder_.AGAIN in self.names and folder_.CANCELLED not in self.names)

    @property
    def has_begun(self) -> bool:
        return folder_.CONFIG in self.names and folder_.AGAIN not in self.names

    @property
    def teacher_runs(self) -> tuple[str, ...]:
        if "teacher_runs" in self.identity:  # of a spec
            return tuple(self.identity["teacher_runs"])
        runs = self.identity.get("teacher.run") or self.identity.get("teacher_run")  # of a result, or an older spec
        return tuple(runs.split(",")) if runs else ()


def _record(runs: Path, id_: str) -> _Record | None:
    if not is_run_name(id_):  # of a teacher, as a file records it
        return None
    folder = RunFolder(runs, id_)
    try:
        names = frozenset(os.listdir(folder.path))
    except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile
        return None
    except OSError as error:
        return _unreadable(id_, frozenset(), reason(error))
    if not names & {folder_.SPEC, folder_.CONFIG, folder_.RESULT}:
        return None
    try:
        return _read(folder, id_, names)
    except FileNotFoundError:  # deleted meanwhile, or begun again
        return _unreadable(id_, names, "its files are changing")
    except _Defect as defect:
        return _unreadable(id_, names, str(defect))


class _Defect(Exception):
    """A file of a run's folder that cannot be used; the message names it, with the reason."""


def _unreadable(id_: str, names: frozenset[str], defect: str) -> _Record:
    return _Record(id_, names, {}, {}, {}, None, None, 0, defect=defect)


def _read(folder: RunFolder, id_: str, names: frozenset[str]) -> _Record:
    def content(name: str) -> dict[str, Any]:
        try:
            return folder.checked(name) if name in names else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            if name != folder_.RESULT and _is_empty(folder / name):
                return {}
            raise _Defect(f"{name}: {reason(error)}") from None

    result = content(folder_.RESULT)
    status = result.get("status")
    if status != "failed" and not (status == "finished" and folder_.CHECKPOINT in names):
        result = {}  # as RunFolder.state has it
    if result and folder_.AGAIN not in names:  # most folders of a large sweep: one file is enough
        return _Record(id_, names, result, result, {}, None, None, 0)
    identity = content(folder_.SPEC) or result or _command(folder)
    submission, progress = content(folder_.SUBMISSION), content(folder_.PROGRESS)
    job = submission.get("job") or None
    user = os.lstat(folder / folder_.SUBMISSION).st_uid if job else 0
    log = logs.job_log(folder) if job else None
    at = _written(folder / folder_.PROGRESS) if progress else None
    return _Record(id_, names, identity, result, progress, at, job, user, log)


def _is_empty(path: Path) -> bool:
    """True for an empty file, as a power cut may leave one that was not written to last."""
    return stat.S_ISREG((status := os.lstat(path)).st_mode) and status.st_size == 0


def _written(path: Path) -> float | None:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None


def _command(folder: RunFolder) -> dict[str, Any]:
    """The identity in the first line of a run's configuration, for folders that have no other record."""
    try:
        with open_regular(folder / folder_.CONFIG) as file:
            command = run_config.command_in(file.readline(AT_MOST).decode())
        words = shlex.split(command or "")[2:]
        values = {key: values[0] for key, values in words_.parse(words, PLAN_KEYS, UserError).values.items()}
        return {**values, "method": values.get("methods"), "seed": int(values["seeds"])}
    except (OSError, ValueError, KeyError, UserError):
        return {}


def _status(
    record: _Record, owner: Owner | None, queue: SlurmQueue, teacher: RunStatus | None, now: Callable[[], float]
) -> RunStatus:
    """The status of a run.

    Args:
        owner: the process that does it now.
        teacher: the first of its teachers that has not ended; None if all have.
        now: the time by the clock of the file system.
    """
    facts: dict[str, Any] = {key: record.identity.get(key) for key in _IDENTITY}
    facts["teacher_runs"] = record.teacher_runs
    if record.defect:
        return RunStatus(record.id, "unreadable", record.defect, **facts)
    if not record.is_open:
        result = record.result
        if result["status"] == "failed":
            return RunStatus(record.id, "failed", error=str(result.get("error")), **facts)
        facts |= {"accuracy": result.get("accuracy.last"), "seconds": result.get("seconds.train")}
        return RunStatus(record.id, "done", **facts)
    facts |= {key: record.progress.get(key) for key in ("epoch", "epochs")}
    if owner and not queue.is_pending(owner.job):  # else its node died, and its job is to start again
        measured = record.progress.get("measured")
        why = None if measured is None else f"measuring, {measured:.0%} done"
        why = "cancelled, stopping" if folder_.CANCELLED in record.names else why
        job = (record.job or owner.job) if owner.job else None
        facts |= _speed(record.progress)
        return RunStatus(record.id, "running", why, where=owner.host, job=job, **facts)
    state, why = _unowned(record, queue.job(record.job) if record.job else None, teacher)
    if state == "stopped" and why is None and record.progress_at is not None:
        why = _ago(now() - record.progress_at)
    return RunStatus(record.id, state, why, job=record.job, **facts)


def _speed(progress: Mapping[str, Any]) -> dict[str, Any]:
    speed, images, budget = (progress.get(key) for key in ("images_per_second", "images", "budget"))
    if not speed or images is None or budget is None:
        return {}
    return {"images_per_second": speed, "seconds_left": min(max(0.0, (budget - images) / speed), LARGEST)}


def _unowned(record: _Record, job: QueuedJob | None, teacher: RunStatus | None) -> tuple[str, str | None]:
    """State and reason of a run that has not ended and that no process does."""
    if folder_.CANCELLED in record.names:
        return "cancelled", None
    if record.job and job is None:
        state = "stopped" if record.has_begun else "queued"
        return state, f"submitted as job {record.job}; squeue does not respond here"
    if job and job.is_pending:
        return "queued", f"job {job.id}: {job.reason}"
    if job and job.is_over:
        return "stopped", _end_of(job, record)
    if teacher and not record.has_begun:
        name = record.identity.get("teacher") if len(record.teacher_runs) == 1 else teacher.id
        return "waiting", f"for its teacher ({name}), which is {teacher.state}"
    if job:
        where = f" on {job.nodes}" if job.nodes else ""
        return "queued", f"job {job.id} is {job.state.lower()}{where} and has not started this run yet"
    if record.has_begun:
        return "stopped", None
    return "planned", "again" if record.result else None


def _end_of(job: QueuedJob, record: _Record) -> str:
    """The end of a job that did not do its run, with the reason in its log if the run cannot have recorded it."""
    if job.in_queue:
        return f"job {job.id} is ending"
    why = f"job {job.id}: {job.state}" if job.state else f"job {job.id} has left the queue"
    if job.state == "OUT_OF_MEMORY":
        return f"{why}; request more with Cluster.memory"
    line = logs.reason(record.log) if record.log else None
    if line and (not record.has_begun or "oom" in line.lower()):  # else the run's own log has it
        return f"{why}; its log: {line}"
    return why


def _ago(seconds: float) -> str:
    for size, word in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {word} ago"
    return "a moment ago"
