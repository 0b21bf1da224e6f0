"""The program of a SLURM job: runs in worker processes, until they end or SLURM reclaims the node. No torch here."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from submitit.core.job_environment import JobEnvironment
from submitit.helpers import DelayedSubmission

from kdbench.config import places
from kdbench.launch import display
from kdbench.launch import gpus as gpus_
from kdbench.launch.pool import Pool
from kdbench.launch.slurm import queue
from kdbench.output import lenient
from kdbench.plan.spec import Spec
from kdbench.store import provenance
from kdbench.store.folder import SPEC, RunFolder
from kdbench.store.owner import slurm_job


@dataclass
class Job:
    """The callable that submitit pickles, one per job: strings and numbers only; the runs' folders hold everything else.

    Attributes:
        runs, data: the folders of all runs and of the datasets.
        ids: ids of the job's runs.
        plugins: the plug-in folders, as in KDBENCH_PLUGINS.
        commit: commit of the code at submission; "" if there is none.
        gpus: number of GPUs that the job requests.
        processes: number of processes that share each run; if more than one, each has its own GPU.
        nodes: number of nodes; each has one task, which starts its share of the processes.
        runs_per_gpu: number of runs that share a GPU.
    """

    runs: str
    ids: tuple[str, ...]
    data: str | None
    plugins: str
    commit: str
    gpus: int
    processes: int
    nodes: int = 1
    runs_per_gpu: int = 1
    _pool: Pool | None = field(default=None, init=False)

    def __call__(self) -> None:
        """Do the runs that are still open; their results go to their folders.

        Raises:
            RunError: the disk is full, or no process can be started.
        """
        os.environ |= {"KDBENCH_PLUGINS": self.plugins, provenance.SUBMITTED: self.commit}
        if not self.gpus:  # a node may have GPUs that this job did not request
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        places.add_plugins([])
        folders = [RunFolder(Path(self.runs), id_) for id_ in self.ids]
        specs = [Spec.from_plain(plain) for folder in folders if folder.is_open() and (plain := folder.read(SPEC))]
        if not specs:  # cancelled, deleted, or done elsewhere, while the job was waiting
            return
        self._pool = Pool(
            specs,
            Path(self.runs),
            Path(self.data) if self.data else None,
            display.Plain(len(specs), Path(self.runs)),
            gpus_.shares(None, self.processes // self.nodes, self.runs_per_gpu),
            self._launcher(),
        )
        signal.signal(signal.SIGTERM, self._terminated)
        with lenient():
            self._pool.run()

    def _launcher(self) -> list[str]:
        if self.nodes == 1:
            return gpus_.launcher(self.processes)
        # The address of the node that started the tasks, which is the first one.
        head, number = os.environ["SLURM_LAUNCH_NODE_IPADDR"], int(os.environ["SLURM_JOB_ID"])
        meet = f"{head}:{20000 + number % 20000}"
        return gpus_.launcher(
            self.processes // self.nodes,
            self.nodes,
            meet,
            str(number),
            _address_towards(head),
            is_first=os.environ["SLURM_NODEID"] == "0",
        )

    def checkpoint(self) -> DelayedSubmission:
        """Save the state of all runs; submitit calls this before the time limit and at preemption, and requeues the result."""
        self._stop()
        return DelayedSubmission(dataclasses.replace(self))

    def _terminated(self, *details: object) -> None:
        """Cancelled, requeued, or preempted with a grace period, after which SLURM may not requeue the job."""
        self._stop()
        job = slurm_job()
        if queue.is_running(job):  # preempted, not cancelled
            queue.requeue(job)
        sys.exit(128 + signal.SIGTERM)

    def _stop(self) -> None:
        # SLURM sends several signals one after the other; a second one would interrupt the handler of the first.
        for number in (signal.SIGTERM, JobEnvironment._usr_sig()):
            signal.signal(number, signal.SIG_IGN)
        if self._pool:
            self._pool.stop()


def _address_towards(other: str) -> str:
    """The address of this node in the network that it shares with another one."""
    with socket.socket(socket.AF_INET6 if ":" in other else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((other, 9))  # sends nothing
        return str(one.getsockname()[0])
