"""A real SLURM for tests: the test cluster that runs already, or one for this session."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

TESTCLUSTER = Path(__file__).parents[3] / "slurm/testcluster.sh"


class Cluster:
    """A running test cluster, and what its users and its power supply can do.

    Attributes:
        folder: Where it lives.
        env: The environment in which SLURM's commands find it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = os.environ | {"KDBENCH_TESTCLUSTER": str(folder), "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str | Path, text: str | None = None) -> str:
        """The standard output of a command; a failure is an error with what it said."""
        done = subprocess.run(command, env=self.env, input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr or done.stdout}"
        return done.stdout.strip()

    def sbatch(self, script: str | Path, *options: str) -> str:
        """Submits a file, or the text of a bash script, and returns the job's id. Its output is lost by default."""
        command = ("sbatch", "--parsable", "--output=/dev/null", *options)
        if isinstance(script, Path):
            return self.run(*command, script)
        return self.run(*command, text=f"#!/bin/bash\n{script}\n")

    def squeue(self) -> list[dict[str, str]]:
        """The jobs that wait, run or complete, each task of an array for itself."""
        names = ("job", "name", "state", "partition", "node", "reason")
        lines = self.run("squeue", "--array", "--noheader", "--format=%i|%j|%T|%P|%N|%r").splitlines()
        return [dict(zip(names, line.split("|"), strict=True)) for line in lines]

    def show(self, job: str) -> dict[str, str]:
        """What `scontrol show job` tells, also for some minutes after the job's end."""
        fields = self.run("scontrol", "--oneliner", "show", "job", job).split(" ")
        return dict(field.split("=", 1) for field in fields if "=" in field)

    def wait(self, job: str, states: str | Collection[str], timeout: float, restarts: int = 0) -> dict[str, str]:
        """Waits until a job is in a state, having been started again at least so often; returns its `show`."""
        states = {states} if isinstance(states, str) else states
        end = time.monotonic() + timeout
        while (shown := self.show(job))["JobState"] not in states or int(shown["Restarts"]) < restarts:
            assert time.monotonic() < end, (
                f"job {job} is {shown['JobState']} ({shown['Reason']}) after {timeout:g} s, with {shown['Restarts']} "
                f"restarts; expected {' or '.join(sorted(states))} with {restarts}"
            )
            time.sleep(0.2)
        return shown

    def requeue(self, job: str) -> None:
        self.run("scontrol", "requeue", job)

    def cancel_all(self) -> None:
        """Cancels all jobs of the cluster, and waits until they are gone."""
        end = time.monotonic() + 60
        while jobs := self.squeue():
            assert time.monotonic() < end, f"not gone after 60 s: {jobs}"
            if any(job["state"] != "COMPLETING" for job in jobs):
                self.run("scancel", "--quiet", *(job["job"] for job in jobs))
            time.sleep(0.2)

    def node_stop(self, node: str) -> None:
        """A power cut of a node: its slurmd and its jobs are killed."""
        self.run(TESTCLUSTER, "node-stop", node)

    def node_start(self, node: str) -> None:
        """Brings a stopped node back, and waits until it takes jobs."""
        self.run(TESTCLUSTER, "node-start", node)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The test cluster of SLURM_CONF if it answers, else one that is started now and stopped after the session.

    SLURM_CONF is set for the rest of the session. Skips where no cluster can run, or fails if KDBENCH_REQUIRE_SLURM is set.
    """
    running = _running()
    started = running or _start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", started.env["SLURM_CONF"])
        yield started
    if not running:
        started.run(TESTCLUSTER, "stop")


def _running() -> Cluster | None:
    folder = Path(os.environ.get("SLURM_CONF", "")).parent
    # Any other cluster is a real one, where tests must neither cancel all jobs nor stop nodes.
    if not (folder / ".testcluster").exists():
        return None
    started = Cluster(folder)
    answer = subprocess.run([TESTCLUSTER, "status"], env=started.env, capture_output=True)
    return started if answer.returncode == 0 else None


def _start() -> Cluster:
    # Not below pytest's own temporary folder: paths of sockets may have no more than 107 characters.
    started = Cluster(Path(tempfile.mkdtemp(prefix="kdbench-testcluster-")))
    done = subprocess.run([TESTCLUSTER, "start"], env=started.env, capture_output=True, text=True)
    if done.returncode == 0:
        return started
    if done.returncode == 3:
        started.folder.rmdir()
        if not os.environ.get("KDBENCH_REQUIRE_SLURM"):
            pytest.skip(done.stderr.strip())
    pytest.fail(done.stderr.strip(), pytrace=False)
