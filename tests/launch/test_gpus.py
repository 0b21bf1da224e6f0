"""Threads of workers, and how the processes of one run meet."""

import os

import pytest

from kdbench.launch import gpus


@pytest.mark.parametrize(
    ("given", "threads"),
    [("1", "1"), ("3", "3"), ("64", "4"), ("3,2", "3"), ("0", "4"), ("", "4"), ("many", "4"), ("-1", "4")],
)
def test_the_users_threads_are_an_upper_bound(monkeypatch, given, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert gpus.shares(2) == [{"OMP_NUM_THREADS": threads}] * 2


def test_the_processes_of_one_machine_meet_without_any_name():
    assert gpus.launcher(1) == []
    words = gpus.launcher(2)
    assert {"--nnodes=1", "--nproc-per-node=2", "--local-addr=127.0.0.1", "--rdzv-endpoint=127.0.0.1:0"} < set(words)


def test_odd_bytes_of_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'GPU 0: Ger\\344t\\nwarning \\377\\nGPU 1: x\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible_gpus() == ["0", "1"]
