"""Batch scripts as submitit writes and reads them, handed to sbatch. No torch here."""

from __future__ import annotations

import re
import shlex
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.config.cluster import Cluster
from kdbench.errors import RunError
from kdbench.launch.slurm import commands

if TYPE_CHECKING:
    from kdbench.launch.slurm.job import Job


def script(command: str, folder: Path, parameters: Mapping[str, Any]) -> str:
    """The batch script of jobs whose log goes to `folder`; `parameters` are those of submitit's SLURM executor."""
    from submitit.slurm.slurm import _make_sbatch_string

    return _make_sbatch_string(command=command, folder=folder, **parameters)


def submit(
    jobs: Sequence[Job], folder: Path, parameters: Mapping[str, Any], cluster: Cluster
) -> tuple[list[str], list[str]]:
    """Submit jobs as one array, or a single one as itself.

    submitit's program runs them. Its executor does not submit them: it decodes what sbatch prints strictly, hands the
    caller's environment on, and has no place for an option of Python's.

    Returns:
        The ids of the jobs, and the files of their logs.

    Raises:
        RunError: SLURM refuses them, or its answer has no id.
    """
    from submitit.core.utils import DelayedSubmission, JobPaths

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    python = cluster.python or shlex.quote(sys.executable)
    # -P: a file profile.py or select.py in the folder of the submission is not the one that torch imports.
    command = f"{python} -P -u -m submitit.core._submit {shlex.quote(str(folder))}"
    own = uuid.uuid4().hex
    pickles = [folder / f".{own}_{number}.pkl" for number in range(len(jobs))]
    file = folder / f".{own}.sh"
    try:
        for job, pickle in zip(jobs, pickles, strict=True):
            call = DelayedSubmission(job)
            call.set_timeout(cluster.minutes, cluster.max_requeues)
            call.dump(pickle)
        file.write_text(script(command, folder, parameters), encoding="utf-8", errors="surrogateescape")
        number = _sbatch(file)
        ids = [number] if len(jobs) == 1 else [f"{number}_{task}" for task in range(len(jobs))]
        paths = [JobPaths(folder, id_) for id_ in ids]
        for pickle, of_job in zip(pickles, paths, strict=True):  # a job waits a minute for its own
            pickle.rename(of_job.submitted_pickle)
        file.rename(paths[0].submission_file)
    finally:
        for left in (*pickles, file):
            left.unlink(missing_ok=True)
    return ids, [str(of_job.stdout) for of_job in paths]


def _sbatch(file: Path) -> str:
    """The id of the job that a batch script has become."""
    try:
        done = commands.call("sbatch", str(file), timeout=None)  # it has a time limit of its own
    except OSError as error:
        raise RunError(f"sbatch: {error}") from error
    if done.returncode:
        raise RunError(f"sbatch refused: {_last_line(done.stderr).removeprefix('sbatch: error: ')}")
    match = re.search(r"Submitted batch job (\d+)", done.stdout)
    if not match:
        raise RunError(f"sbatch printed no job id: {_last_line(done.stdout)}")
    return match[1]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
