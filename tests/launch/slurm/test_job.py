"""A job, outside SLURM: what it takes up, what it hands to its workers, and what happens to it at each signal."""

import dataclasses
import os
import pickle
import signal
from typing import ClassVar

import pytest

from kdbench.launch import gpus
from kdbench.launch.slurm import job
from kdbench.launch.slurm.job import Job
from kdbench.plan import expand, request
from kdbench.store import provenance
from kdbench.store.folder import RunFolder

SPECS = expand.plan(request.parse(["methods=ce", "dataset=digits", "seeds=0,1"]))


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("KDBENCH_PLUGINS", "CUDA_VISIBLE_DEVICES", provenance.SUBMITTED):
        monkeypatch.setenv(name, "")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def pool(monkeypatch):
    """Stands in for the pool, and keeps what it was given."""

    class Pool:
        made: ClassVar = []
        stops = 0

        def __init__(self, specs, runs, data, shown, environments=({},), launcher=()):
            self.specs, self.environments, self.launcher = specs, environments, launcher
            Pool.made.append(self)

        def run(self):
            pass

        def stop(self):
            Pool.stops += 1

    monkeypatch.setattr(job, "Pool", Pool)
    return Pool


def make(runs, specs=SPECS, **changes):
    for spec in specs:
        RunFolder(runs, spec.id).enqueue(spec.plain())
    given = Job(str(runs), tuple(spec.id for spec in specs), None, "", "abc", 1, 1)
    return dataclasses.replace(given, **changes)


def test_it_does_the_runs_that_are_open(tmp_path, pool):
    one = make(tmp_path)
    (RunFolder(tmp_path, SPECS[0].id) / "cancelled").touch()
    one()
    assert [spec.id for spec in pool.made[-1].specs] == [SPECS[1].id]
    assert os.environ[provenance.SUBMITTED] == "abc"


def test_it_ends_where_nothing_is_open(tmp_path, pool):
    one = make(tmp_path)
    for spec in SPECS:
        (RunFolder(tmp_path, spec.id) / "cancelled").touch()
    pool.made.clear()
    one()
    assert not pool.made


def test_a_worker_for_each_gpu_and_one_for_a_run_over_several(tmp_path, pool, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    make(tmp_path, gpus=2)()
    assert pool.made[-1].environments == [
        {"CUDA_VISIBLE_DEVICES": "4", "OMP_NUM_THREADS": "3"}, {"CUDA_VISIBLE_DEVICES": "5", "OMP_NUM_THREADS": "3"},
    ]  # fmt: skip
    make(tmp_path, gpus=2, processes=2)()
    assert pool.made[-1].environments == [{"CUDA_VISIBLE_DEVICES": "4,5", "OMP_NUM_THREADS": "3"}]
    assert pool.made[-1].launcher == gpus.launcher(2)
    make(tmp_path, gpus=0)()
    assert pool.made[-1].environments == [{"OMP_NUM_THREADS": "6"}]
    assert gpus.visible_gpus() == []


def test_the_nodes_of_a_run_meet_by_address_because_names_need_not_resolve(tmp_path, pool, monkeypatch):
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.2")
    monkeypatch.setenv("SLURM_JOB_ID", "20007")
    for node in ("0", "1"):
        monkeypatch.setenv("SLURM_NODEID", node)
        make(tmp_path, gpus=0, processes=4, nodes=2)()
        words = pool.made[-1].launcher
        assert {"--nnodes=2", "--rdzv-endpoint=127.0.0.2:20007", "--rdzv-id=20007", "--nproc-per-node=2"} < set(words)
        assert f"--rdzv-conf=is_host={int(node == '0')}" in words
        assert any(word.startswith("--local-addr=127.0.0.") for word in words)


def test_the_users_threads_are_an_upper_bound_in_jobs_too(tmp_path, pool, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    make(tmp_path, gpus=0)()
    assert pool.made[-1].environments == [{"OMP_NUM_THREADS": "2"}]


def test_told_of_its_end_it_stops_its_workers_and_comes_again(tmp_path, pool):
    one = make(tmp_path)
    one()
    pool.stops = 0
    again = one.checkpoint()
    assert pool.stops == 1
    assert again.function == make(tmp_path)
    assert pickle.loads(pickle.dumps(again)).function == make(tmp_path)


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", True), ("COMPLETING", False), ("", False)])
def test_terminated_it_requeues_itself_unless_it_was_cancelled(tmp_path, pool, monkeypatch, state, requeued):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    called = []

    def ask(*words):
        called.append(words)
        return ["12_2|13|RUNNING|n1|None", f"12_3|14|{state}|n1|None"] if state else None

    monkeypatch.setattr(job.queue, "_ask", ask)
    one = make(tmp_path)
    one()
    pool.stops = 0
    with pytest.raises(SystemExit) as end:
        signal.raise_signal(signal.SIGTERM)
    assert end.value.code == 143
    assert pool.stops == 1
    assert (("scontrol", "requeue", "12_3") in called) is requeued
