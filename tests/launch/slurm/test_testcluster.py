"""The test cluster behaves as a real one does: GPUs, queue, requeue, preemption, the loss of a node."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

TESTCLUSTER = Path(__file__).parents[3] / "slurm/testcluster.sh"
BASH = shutil.which("bash") or "bash"
ENDLESS = "sleep 600"


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves jobs to the next."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").cancel_all()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A file for jobs to write to."""
    return tmp_path / "log"


def _wait_for_line(log: Path, line: str, timeout: float) -> None:
    end = time.monotonic() + timeout
    while not log.exists() or line not in log.read_text().splitlines():
        assert time.monotonic() < end, f"no line {line!r} after {timeout:g} s"
        time.sleep(0.2)


def test_two_nodes_with_two_gpus_each(cluster):
    nodes = cluster.run("sinfo", "--noheader", "--Node", "--partition=low", "--format=%N %G %T").splitlines()
    assert nodes == ["n1 gpu:2 idle", "n2 gpu:2 idle"]


def test_jobs_of_one_node_see_different_gpus(cluster, log):
    script = f"echo $CUDA_VISIBLE_DEVICES >>{log}; sleep 2"
    jobs = [cluster.sbatch(script, "--gpus=1", "--nodelist=n1") for _ in range(2)]
    for job in jobs:
        cluster.wait(job, "COMPLETED", timeout=20)
    assert sorted(log.read_text().split()) == ["0", "1"]


def test_the_fifth_gpu_job_waits(cluster):
    *first, last = [cluster.sbatch(ENDLESS, "--gpus=1") for _ in range(5)]
    nodes = [cluster.wait(job, "RUNNING", timeout=20)["NodeList"] for job in first]
    assert sorted(nodes) == ["n1", "n1", "n2", "n2"]
    assert {job["job"]: job["state"] for job in cluster.squeue()}[last] == "PENDING"
    cluster.run("scancel", first[0])
    cluster.wait(last, "RUNNING", timeout=20)


def test_a_requeued_job_starts_again_soon(cluster, log):
    job = cluster.sbatch(f"echo restart=$SLURM_RESTART_COUNT >>{log}; {ENDLESS}", "--gpus=1")
    _wait_for_line(log, "restart=", timeout=20)
    cluster.requeue(job)
    _wait_for_line(log, "restart=1", timeout=20)


def test_a_preempted_job_is_warned_and_starts_again(cluster, log):
    script = f"trap 'echo warned >>{log}' USR2; echo restart=$SLURM_RESTART_COUNT >>{log}; {ENDLESS} & wait; wait"
    low = cluster.sbatch(script, "--gpus=2", "--nodelist=n1", "--signal=B:USR2@30")
    _wait_for_line(log, "restart=", timeout=20)
    high = cluster.sbatch("true", "--gpus=2", "--nodelist=n1", "--partition=high")
    _wait_for_line(log, "warned", timeout=20)
    cluster.wait(high, "COMPLETED", timeout=50)
    cluster.wait(low, "RUNNING", timeout=20, restarts=1)
    _wait_for_line(log, "restart=1", timeout=5)


def test_jobs_of_a_lost_node_start_again_elsewhere(cluster, log):
    script = f"echo restart=$SLURM_RESTART_COUNT $SLURMD_NODENAME >>{log}; {ENDLESS}"
    job = cluster.sbatch(script, "--gpus=1")
    _wait_for_line(log, "restart= n1", timeout=20)
    cluster.node_stop("n1")
    assert not _processes_with(f"SLURM_JOB_ID={job}")
    _wait_for_line(log, "restart=1 n2", timeout=60)
    cluster.node_start("n1")
    cluster.wait(cluster.sbatch("true", "--nodelist=n1"), "COMPLETED", timeout=20)


def test_jobs_of_a_node_that_comes_back_at_once_start_again(cluster, log):
    cluster.sbatch(f"echo restart=$SLURM_RESTART_COUNT >>{log}; {ENDLESS}", "--nodelist=n1")
    _wait_for_line(log, "restart=", timeout=20)
    cluster.node_stop("n1")
    cluster.node_start("n1")
    _wait_for_line(log, "restart=1", timeout=20)


def test_start_twice_is_harmless(cluster):
    job = cluster.sbatch(ENDLESS)
    cluster.wait(job, "RUNNING", timeout=20)
    assert "already running" in cluster.run(TESTCLUSTER, "start")
    assert cluster.show(job)["JobState"] == "RUNNING"


def test_stop_ends_all_that_start_began(cluster, tmp_path):
    other = type(cluster)(tmp_path / "other")
    other.run(TESTCLUSTER, "start")
    try:
        job = other.sbatch(f"trap '' TERM; {ENDLESS} & wait")
        other.wait(job, "RUNNING", timeout=20)
    finally:
        other.run(TESTCLUSTER, "stop")
    assert not _processes_with(f"SLURM_CONF={other.folder}/slurm.conf")
    assert not other.folder.exists()
    assert "running" in cluster.run(TESTCLUSTER, "status")


def test_missing_programs_are_named_with_their_packages():
    done = subprocess.run([BASH, TESTCLUSTER, "start"], env={"PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "testcluster: not on the PATH: munged slurmctld slurmd sinfo scontrol; the Debian packages are munge slurm-wlm"
    ]


def test_who_is_not_root_is_told(cluster):
    # By standard input, as the folder of the script may not be readable for others.
    nobody = {"user": 65534} if os.geteuid() == 0 else {}
    script = TESTCLUSTER.read_text()
    done = subprocess.run(
        [BASH, "-s", "start"], input=script, env=cluster.env, capture_output=True, text=True, **nobody
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "only root" in done.stderr


def test_a_folder_of_somebody_else_is_left_alone(cluster, tmp_path):
    (tmp_path / "precious").touch()
    env = cluster.env | {"KDBENCH_TESTCLUSTER": str(tmp_path)}
    assert subprocess.run([TESTCLUSTER, "start"], env=env, capture_output=True).returncode == 1
    subprocess.run([TESTCLUSTER, "stop"], env=env, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def _processes_with(variable: str) -> list[str]:
    """The commands of all processes that were started with this variable."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                commands.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended meanwhile
            continue
    return commands
