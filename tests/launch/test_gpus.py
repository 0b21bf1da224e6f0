"""Threads of workers, and how the processes of one run meet."""

import os

import pytest

from kdbench.errors import UserError
from kdbench.launch import gpus

MIG = "MIG-1c5f3a22-6d1b-5d8e-8f3a-0c9c5b0f6d11"


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


def test_runs_that_share_a_gpu_are_started_on_all_gpus_first(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    both = [{"CUDA_VISIBLE_DEVICES": gpu, "OMP_NUM_THREADS": "2", "KDBENCH_RUNS_PER_GPU": "2"} for gpu in ("4", "7")]
    assert gpus.shares(None, 1, 2) == both * 2
    assert [each.get("KDBENCH_RUNS_PER_GPU") for each in gpus.shares(3)] == ["2", None, "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.shares(None, 1, 2) == [{"OMP_NUM_THREADS": "4"}] * 2


@pytest.mark.parametrize("name", [MIG, "MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/2", "GPU-8932f937-d72c-4106"])
def test_gpus_and_their_instances_are_named_by_uuid(monkeypatch, name):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{name}, 3")
    assert gpus.visible_gpus() == [name, "3"]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in gpus.shares(None, 1, 2)] == [name, "3"] * 2


def test_a_run_over_several_gpus_cannot_use_mig_instances(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{MIG},{MIG}")
    with pytest.raises(UserError, match="gpus=2 needs whole GPUs: a process can use only one MIG instance"):
        gpus.shares(None, 2)


def test_a_divided_gpu_is_its_instances(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-8932f937)'\n"
        f"echo '  MIG 3g.20gb     Device  0: (UUID: {MIG})'\necho '  MIG 3g.20gb     Device  1: (UUID: MIG-2)'\n"
        "echo 'GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-77)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible_gpus() == [MIG, "MIG-2", "1"]
