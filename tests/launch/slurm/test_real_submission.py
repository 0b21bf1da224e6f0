"""Runs as real jobs: what comes of them is what comes of the same command without SLURM, whatever happens on the way."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[3]
SWEEP = [
    *("methods=ce,kd,byot", "dataset=digits", "Train.epochs=2", "Train.warmup=0", "Machine.threads=1"),
    "Measures.corruptions=False",
    "Measures.images=10",
]
# Long enough to be met in the middle; a state after each step shows that jobs go on and do not start over.
LONG = ["methods=byot", "dataset=digits", "Train.epochs=30", "Train.warmup=0", "Machine.threads=1"]
LONG += ["Machine.checkpoint_every=0"]
PLACE = "cluster=testcluster"


@pytest.fixture(autouse=True)
def _empty(cluster):
    """No test leaves jobs to the next."""
    yield
    cluster.cancel_all()


@pytest.fixture
def kdbench(cluster):
    """Runs the command of this clone, which the jobs find as well; its output."""
    environment = cluster.env | {
        "PYTHONPATH": str(ROOT),
        "KDBENCH_DATA": "",
        "KDBENCH_PLUGINS": "",
        "OMP_NUM_THREADS": "1",
    }

    def run(runs, *words):
        command = [sys.executable, "-m", "kdbench", "run", *words, "--runs", str(runs)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def weights(runs):
    results = [json.loads(path.read_text()) for path in runs.glob("*/result.json")]
    return {result["run"]: result["weights.sha256"] for result in results}


def until(condition, timeout=180.0):
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"not so after {timeout:g} s"
        time.sleep(0.1)
    return value


def test_a_sweep(cluster, kdbench, tmp_path):
    runs = tmp_path / "runs"
    submitted = kdbench(runs, *SWEEP, PLACE, "Cluster.runs_per_job=2")
    said = re.findall(r"submitted as jobs? (\S+): (\d) runs? in (\d) job", submitted)
    assert [(int(r), int(j)) for _, r, j in said] == [(1, 1), (2, 1), (1, 1)]
    teacher, pair, student = (job for job, _, _ in said)
    before = len(list(runs.glob("*/result.json")))  # the cluster may be quicker than this test
    again = kdbench(runs, *SWEEP, PLACE)
    after = len(list(runs.glob("*/result.json")))
    number, jobs = re.search(
        r"(\d) runs? (?:is|are) already in submitted jobs: (.+)\nnothing was submitted", again
    ).groups()
    assert before <= 4 - int(number) <= after
    assert {student} <= set(jobs.split(", ")) <= {teacher, pair, student}

    kdbench(tmp_path / "inline", *SWEEP)
    shown = [cluster.wait(job, "COMPLETED", timeout=300) for job, _, _ in said]
    assert shown[2]["StartTime"] >= shown[0]["EndTime"]
    assert weights(runs) == weights(tmp_path / "inline")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    for path in runs.glob("*/result.json"):
        result = json.loads(path.read_text())
        told = json.loads((path.parent / "submission.json").read_text())
        assert result["provenance.job"] == told["job"]
        assert result["provenance.commit_submitted"] == (commit or None) == told["commit"]
        assert result["provenance.host"]
        assert path.parent.name in Path(told["log"]).read_text()
    table = kdbench(runs, *SWEEP, PLACE)
    assert "submitted" not in table
    assert "digits · resnet8" in table


def test_neither_the_callers_allocation_nor_its_folder_decides_what_a_job_gets(cluster, tmp_path):
    (tmp_path / "select.py").write_text("raise SystemExit('the wrong module')")
    command = [sys.executable, "-m", "kdbench", "run", "methods=ce", *SWEEP[1:], PLACE, "Cluster.memory=1G"]
    command += ["Cluster.gpu_option=gres", "--runs", str(tmp_path / "runs")]
    environment = cluster.env | {"PYTHONPATH": str(ROOT), "SBATCH_PARTITION": "high", "SBATCH_TIMELIMIT": "1"}
    allocation = ["salloc", "-q", "-n1", "-c1", "--mem-per-cpu=1000", "--time=5"]
    subprocess.run([*allocation, *command], env=environment, cwd=tmp_path, capture_output=True, check=True)
    (folder,) = (tmp_path / "runs").glob("ce-*")
    shown = cluster.wait(job_of(folder), {"COMPLETED", "FAILED"}, timeout=300)
    assert (shown["JobState"], shown["Partition"], shown["TimeLimit"]) == ("COMPLETED", "low", "00:30:00")
    assert (folder / "result.json").exists()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights of the long runs as one process makes them."""
    runs = tmp_path_factory.mktemp("inline")
    command = [sys.executable, "-m", "kdbench", "run", *LONG, "seeds=0,1,2,3", "--runs", str(runs)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    return weights(runs)


def went_on(folder):
    """Whether a run ended in another process than it began in, and did not start over."""
    return (
        bool(re.search(r"resuming at step [1-9]\d* \(process 2", (folder / "log.txt").read_text()))
        and json.loads((folder / "result.json").read_text())["provenance.job"] == job_of(folder)
        and not list(folder.glob("lease.*"))
    )


def job_of(folder):
    return json.loads((folder / "submission.json").read_text())["job"]


def test_jobs_that_are_interrupted_end_in_the_same_bits(cluster, kdbench, uninterrupted, tmp_path):
    words = (tmp_path, *LONG, "seeds=0,1,2,3", PLACE)
    kdbench(*words)
    folders = [*tmp_path.glob("byot-*")]
    until(lambda: all((folder / "resume.pt").exists() for folder in folders))
    requeued, told, terminated, cancelled = map(job_of, folders)
    cluster.run("scancel", cancelled)
    again = kdbench(*words)
    assert "3 runs are already in submitted jobs" in again
    assert "1 run in 1 job" in again
    cluster.requeue(requeued)
    cluster.run("scancel", "--signal=USR2", told)
    cluster.run("scancel", "--signal=TERM", terminated)
    until(lambda: len(weights(tmp_path)) == 4, timeout=300)
    until(lambda: not cluster.squeue())
    assert weights(tmp_path) == uninterrupted
    assert all(map(went_on, folders))


def test_a_preempted_job_ends_in_the_same_bits(cluster, kdbench, uninterrupted, tmp_path):
    kdbench(tmp_path, *LONG, "seeds=0", PLACE)
    (folder,) = tmp_path.glob("byot-*")
    until((folder / "resume.pt").exists)
    cluster.sbatch("true", "--partition=high", "--nodes=2", "--exclusive")
    cluster.wait(job_of(folder), "COMPLETED", timeout=300, restarts=1)
    assert weights(tmp_path).items() <= uninterrupted.items()
    assert went_on(folder)
