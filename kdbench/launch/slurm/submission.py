"""Submit runs as jobs of a SLURM cluster, through submitit: one array for each kind of job, students after their teachers.

No torch here; `kdbench.launch.slurm.job` is what a job executes.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.config.cluster import Cluster
from kdbench.errors import RunError, UserError
from kdbench.launch import backlog
from kdbench.launch.slurm import batch
from kdbench.launch.slurm.queue import QueuedJob
from kdbench.plan.spec import Spec
from kdbench.store import provenance
from kdbench.store.folder import CANCELLED, SUBMISSION, RunFolder
from kdbench.words import count

FOLDER = ".slurm"
"""In the folder of the runs: submitit's files of each job, and the jobs' logs. Flat, so that it exists before any job starts."""
LONGEST = 1000
"""Jobs in one array; SLURM's default allows indices up to this."""
WAITS = ("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESIZING")
"""States of a job that has not done its runs yet; in any other one it is about to end."""


def is_here() -> bool:
    """True if this machine has SLURM's commands."""
    return all(shutil.which(command) for command in ("sbatch", "squeue", "scontrol", "srun"))


@dataclass(frozen=True)
class Array:
    """Jobs with the same resources and the same dependencies, submitted by one call of sbatch.

    Attributes:
        gpus: number of GPUs of each job.
        processes: number of processes that share each run.
        teachers: runs of this plan whose jobs must end first.
        behind: jobs of earlier submissions that must end first.
        jobs: the runs of each job.
        runs_per_gpu: number of runs that share a GPU.
    """

    gpus: int
    processes: int
    teachers: tuple[str, ...]
    behind: tuple[str, ...]
    jobs: tuple[tuple[Spec, ...], ...]
    runs_per_gpu: int = 1

    def __str__(self) -> str:
        runs = sum(map(len, self.jobs))
        text = f"{count(runs, 'run')} in {count(len(self.jobs), 'job')}"
        first = [f"the job of {run}" for run in self.teachers] + [f"job {job}" for job in self.behind]
        return text + (f", after {' and '.join(first)}" if first else "")

    @property
    def runs_at_once(self) -> int:
        """Runs that a job does in parallel, as fast as each would be alone: those that share a GPU count as one."""
        return 1 if self.processes > 1 else max(1, self.gpus)


class Submission:
    """The jobs that some runs need.

    Args:
        specs: the runs to do (`backlog.open_runs`).
        queue: the user's jobs, by id (`queue.read`).
        runs_per_gpu: number of runs that share a GPU. A job then has at least as many runs as it does at a time.

    Raises:
        UserError: several nodes cannot share the GPUs of a run evenly, or runs are to share GPUs, and their jobs have none.

    Attributes:
        arrays: arrays of jobs, in the order of their submission.
        submitted: job of each run that an earlier submission will do.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        runs: Path,
        cluster: Cluster,
        queue: Mapping[str, QueuedJob],
        runs_per_gpu: int = 1,
    ):
        self._runs, self._cluster, self._runs_per_gpu = runs, cluster, runs_per_gpu
        self.submitted: dict[str, str] = {}
        ending: dict[str, str] = {}
        for spec in specs if queue else ():
            folder = RunFolder(runs, spec.id)
            job = queue.get((folder.read(SUBMISSION) or {}).get("job", ""))
            if job and job.state in WAITS and folder.is_open():
                self.submitted[spec.id] = job.id
            elif job and ((folder / CANCELLED).exists() or folder.is_open()):
                ending[spec.id] = job.id  # it may still hold the run; a job that waits for it finds the run free
        new = [spec for spec in specs if spec.id not in self.submitted]
        asked = [spec for spec in new if not spec.is_teacher]
        needed = {spec.id for spec in backlog.teachers_of(asked, new)}
        new = [spec for spec in new if not spec.is_teacher or spec.id in needed]
        self.arrays: list[Array] = []
        for wave in _waves(new, needed):
            self.arrays += self._arrays(wave, {spec.id for spec in new}, ending)
        for array in self.arrays:
            self.nodes(array)  # before anything is submitted
            if runs_per_gpu > 1 and not array.gpus:
                raise UserError(f"runs_per_gpu={runs_per_gpu} needs jobs with GPUs, but Cluster.gpus=0; leave it out")

    def _arrays(self, wave: Sequence[Spec], new: set[str], ending: Mapping[str, str]) -> Iterator[Array]:
        by_kind: dict[tuple[Any, ...], list[Spec]] = {}
        for spec in wave:
            earlier = [ending.get(spec.id), *map(self.submitted.get, spec.teacher_runs)]
            behind = tuple(dict.fromkeys(job for job in earlier if job))
            key = (*self._shape(spec), tuple(run for run in spec.teacher_runs if run in new), behind)
            by_kind.setdefault(key, []).append(spec)
        for key, members in by_kind.items():
            several = self._cluster.runs_per_job
            if self._runs_per_gpu > 1:
                several = max(several, key[0] * self._runs_per_gpu)
            packs = [tuple(members[i : i + several]) for i in range(0, len(members), several)]
            for i in range(0, len(packs), LONGEST):
                yield Array(*key, jobs=tuple(packs[i : i + LONGEST]), runs_per_gpu=self._runs_per_gpu)

    def processors(self, array: Array) -> tuple[int, str]:
        """The number of GPUs of each job, or of CPUs where it has no GPU; and "GPU" or "CPU"."""
        return (array.gpus, "GPU") if array.gpus else (self._cluster.cpus * array.processes, "CPU")

    def _shape(self, spec: Spec) -> tuple[int, int]:
        """GPUs of a run's job, and processes that share the run."""
        if spec.device == "cpu":
            return 0, spec.gpus
        return spec.gpus if spec.gpus > 1 else self._cluster.gpus, spec.gpus

    def parameters(self, array: Array, after: Sequence[str]) -> dict[str, Any]:
        """The parameters of submitit's batch script for an array whose jobs wait for the jobs `after`."""
        cluster = self._cluster
        nodes = self.nodes(array)
        each = array.processes // nodes
        cpus = cluster.cpus * each
        return {
            "job_name": "kdbench",
            "time": cluster.minutes,
            "partition": cluster.partition,
            "account": cluster.account,
            "qos": cluster.qos,
            "constraint": cluster.constraint,
            "nodes": nodes,
            "ntasks_per_node": 1,
            "cpus_per_task": cpus,
            "mem": cluster.memory_of(each),
            "signal_delay_s": cluster.signal_delay_s,
            "array_parallelism": cluster.array_parallelism,
            "map_count": len(array.jobs) if len(array.jobs) > 1 else None,
            # Whatever becomes of a teacher's job: the student's trains a teacher that is missing.
            "dependency": f"afterany:{':'.join(after)}" if after else None,
            "additional_parameters": {"requeue": True, **cluster.options_with(array.gpus // nodes)},
            "setup": list(cluster.setup) or None,
            "srun_args": [f"--cpus-per-task={cpus}"],  # since SLURM 22.05 a step no longer inherits it
            "stderr_to_stdout": True,
            "wckey": None,
        }

    def nodes(self, array: Array) -> int:
        """The nodes of each job of an array.

        Raises:
            UserError: several nodes cannot share the GPUs of a run evenly.
        """
        try:
            return self._cluster.nodes_for(array.processes)
        except ValueError as error:
            raise UserError(str(error)) from None

    def options(self, array: Array) -> list[str]:
        """The options of sbatch, as submitit will write them; a teacher's job, which has no id yet, is named after its run."""
        parameters = self.parameters(array, [f"job-of-{run}" for run in array.teachers] + list(array.behind))
        lines = batch.script("", self._runs / FOLDER, parameters).splitlines()
        return [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]

    def submit(self, data: Path | None, cluster: str, rerun: bool) -> Iterator[tuple[Array, list[str]]]:
        """Write the runs to their folders and submit their jobs.

        Args:
            cluster: name of the profile, for the folders of the runs.

        Yields:
            Each array with the ids of its jobs, as soon as it is submitted.

        Raises:
            UserError: SLURM refuses the first array.
            RunError: SLURM refuses a later one.
        """
        self._runs.mkdir(parents=True, exist_ok=True)
        (self._runs / FOLDER).mkdir(mode=0o700, exist_ok=True)  # its pickles are executed by the jobs
        commit, clean = provenance.of_this_code()
        job_of: dict[str, str] = {}
        for array in self.arrays:
            specs = [spec for job in array.jobs for spec in job]
            backlog.enqueue(specs, self._runs, rerun)
            first = [job_of[run] for run in array.teachers]
            try:
                numbers, logs = self._hand_over(array, [*first, *array.behind], data, commit)
            except RunError as error:
                if not job_of:
                    raise UserError(str(error)) from None
                raise RunError(f"{error}; {count(len(job_of), 'run')} had already been submitted") from None
            at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            for job, number, log in zip(array.jobs, numbers, logs, strict=True):
                record: dict[str, Any] = {"job": number, "cluster": cluster, "submitted_at": at}
                record |= {"commit": commit, "clean": clean, "log": log}
                for spec in job:
                    job_of[spec.id] = number
                    RunFolder(self._runs, spec.id).write(SUBMISSION, record, lasting=False)
            yield array, numbers

    def _hand_over(
        self, array: Array, after: Sequence[str], data: Path | None, commit: str | None
    ) -> tuple[list[str], list[str]]:
        from kdbench.launch.slurm.job import Job

        plugins = os.environ.get("KDBENCH_PLUGINS", "")
        ids = [tuple(spec.id for spec in job) for job in array.jobs]
        text = str(data) if data else None
        shape = (array.gpus, array.processes, self.nodes(array), array.runs_per_gpu)
        calls = [Job(str(self._runs), each, text, plugins, commit or "", *shape) for each in ids]
        return batch.submit(calls, self._runs / FOLDER, self.parameters(array, after), self._cluster)


def _waves(specs: Sequence[Spec], teachers: AbstractSet[str]) -> Iterator[list[Spec]]:
    """The runs in the order in which their jobs can name those that they wait for: teachers by their depth, then the rest."""
    left = set(teachers)
    while wave := [spec for spec in specs if spec.id in left and left.isdisjoint(spec.teacher_runs)]:
        yield wave
        left -= {spec.id for spec in wave}
    yield [spec for spec in specs if spec.id not in teachers]


def named(ids: Sequence[str]) -> str:
    """The jobs of one array in words: job 12, or jobs 12_[0-4]."""
    array = ids[0].partition("_")[0]
    return f"job {ids[0]}" if len(ids) == 1 else f"jobs {array}_[0-{len(ids) - 1}]"
