"""`kdbench cancel`: stop runs that are queued or running, on whatever machine. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdbench.cli import selection
from kdbench.cli.commands.status_old import counts, nothing
from kdbench.errors import RunError, UserError
from kdbench.launch import status
from kdbench.launch.slurm import queue
from kdbench.launch.slurm.queue import Slurm
from kdbench.launch.status import ENDED, Run
from kdbench.store.folder import CANCELLED, RunFolder

NAMED = 10
"""So many ids are printed at most."""


def cancel(words: Sequence[str], runs: Path) -> int:
    """Cancel the selected runs that have not ended, and print which.

    A marker in a run's folder tells whoever does it, or would, wherever that is. SLURM jobs that have nothing to do then are
    taken out of its queue.

    Args:
        words: the selection, or "all".

    Raises:
        UserError: nothing is selected, or a word means nothing.
        RunError: a folder cannot be written to; or SLURM kept the jobs of runs that are cancelled now.
    """
    selected = selection.parse(words)
    if selected.is_empty:
        raise UserError("say which runs are cancelled: ids or their beginnings, methods=A,B, state=queued, …, or 'all'")
    slurm = Slurm()
    everything = status.read(runs, slurm=slurm)
    meant = set(selected.ids(runs))
    chosen = selected.chosen([run for run in everything if run.id in meant])
    open_ = [run for run in chosen if run.state not in ENDED]
    if not open_:
        names = [run.id for run in everything]
        print(f"nothing to cancel: {counts(chosen) if chosen else nothing(runs, selected, names)}")
        return 0
    for run in open_:
        try:
            (RunFolder(runs, run.id) / CANCELLED).touch()
        except OSError as error:
            raise RunError(f"cannot cancel {run.id}: {error.strerror}") from error
    print(f"cancelled {counts(open_)}")
    if len(open_) <= NAMED:
        print("\n".join(f"  {run.id}" for run in open_))
    if any(run.state == "running" for run in open_):
        print("Those that are running keep their state and stop within seconds.")
    idle = _idle_jobs(everything, {run.id for run in open_}, slurm)
    if idle:
        wrong = queue.cancel(idle)
        if wrong:
            raise RunError(f"SLURM kept the jobs {', '.join(idle[:NAMED])}: {wrong}")
        few = f": {', '.join(idle)}" if len(idle) <= NAMED else ""
        print(f"Taken out of SLURM's queue: {len(idle)} job{'s' * (len(idle) != 1)}{few}")
    print("The same kdbench run command goes on with them.")
    return 0


def _idle_jobs(everything: Sequence[Run], cancelled: set[str], slurm: Slurm) -> list[str]:
    """The jobs in SLURM's queue of which no run is left to be done."""
    touched = {run.job for run in everything if run.id in cancelled and run.job}
    busy = {run.job for run in everything if run.id not in cancelled and run.state not in ENDED}
    found = [job for id_ in touched - busy if (job := slurm.job(id_))]
    return sorted(job.id for job in found if not job.is_over)
