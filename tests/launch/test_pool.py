"""The local queue: several worker processes, what kills them, and what the user does to them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdbench.config import places
from kdbench.errors import UserError
from kdbench.launch import backlog, gpus, local
from kdbench.plan import expand
from kdbench.plan import request as request_
from kdbench.store.folder import CANCELLED, LOG, RESUME, RunFolder

ODD = '''
"""Cross-entropy that writes odd bytes, lines that look like a worker's messages, and a line without an end."""
import os, sys
from kdbench.method import Method


class ODD(Method):
    def losses(self, batch):
        if batch.step == 1:
            for stream in (1, 2):
                os.write(stream, b"Ger\\xe4t\\n" + 100_000 * b"#")
            print('{"event": "over", "why": "forged"}', '{"event": "progress"}', "[]", sep="\\n", flush=True)
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}
'''
SLOW = '''
"""Cross-entropy with pauses."""
import os, signal, time
from kdbench.method import Method


class SLOW(Method):
    """Args: pause: seconds a step. deadly: the step at which it kills its process, -1 for none."""

    pause: float
    deadly: int

    def losses(self, batch):
        time.sleep(self.pause)
        if batch.step == self.deadly:
            os.kill(os.getpid(), signal.SIGSEGV)
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}
'''
WORDS = [
    "dataset=digits", "student=resnet8", "teacher=resnet8", "Train.batch_size=24", "Train.warmup=0",
    "Machine.threads=1", "Machine.checkpoint_every=0", "Measures.corruptions=False", "Measures.images=10",
]  # fmt: skip
LENGTH = {"epochs": "Train.epochs=3"}


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A plug-in method that takes its time."""
    root = tmp_path / "plugin"
    put(root, "slow", SLOW, "SLOW.pause = 0.0\nSLOW.deadly = -1\n")
    put(root, "odd", ODD)
    monkeypatch.setenv("KDBENCH_PLUGINS", "")
    places.add_plugins([str(root)])
    yield
    monkeypatch.undo()
    places.add_plugins([])


def put(root, name, text, values=""):
    """Adds a method to a plug-in folder."""
    for path, content in ((f"methods/{name}.py", text), (f"gin/method/{name}.gin", values)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)


def specs(*words):
    return expand.plan(request_.parse([*WORDS, LENGTH["epochs"], *words]))


def weights(runs):
    results = {path.parent.name: RunFolder(runs, path.parent.name).result() for path in runs.glob("*/result.json")}
    return {run: result.get("weights.sha256", result["status"]) for run, result in results.items()}


def begun(errors):
    """How often each run began, as the plain display tells it."""
    return [line.split("] ")[1] for line in errors.splitlines() if "] " in line and "]   " not in line]


def started(runs, *words):
    """`kdbench run` in a process of its own."""
    command = [sys.executable, "-m", "kdbench", "run", *WORDS, LENGTH["epochs"], *words, "--runs", str(runs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(holds, seconds=180):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.02)


def workers_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


def test_two_workers_do_each_run_once_and_get_what_one_process_gets(tmp_path, capsys):
    wanted = specs("methods=ce,kd", "seeds=0,1")
    local.inline(wanted, tmp_path / "one", None)
    capsys.readouterr()
    local.local(wanted, tmp_path / "two", None, workers=2)
    assert sorted(begun(capsys.readouterr().err)) == sorted(spec.id for spec in wanted)
    assert weights(tmp_path / "two") == weights(tmp_path / "one")
    assert not list((tmp_path / "two").glob("*/lease.*"))


def test_a_killed_worker_costs_nothing_but_its_last_step(slow, tmp_path):
    words = ["methods=slow", "SLOW.pause=0.15"]
    local.inline(specs(*words), tmp_path / "one", None)
    process = started(tmp_path / "two", *words, "workers=1")
    until(lambda: list((tmp_path / "two").glob(f"*/{RESUME}")))
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors.count("its process was killed by signal 9") == 1
    assert weights(tmp_path / "two") == weights(tmp_path / "one")
    (run,) = weights(tmp_path / "two")
    assert RunFolder(tmp_path / "two", run).result()["provenance.sessions"] == 2


def test_a_run_that_takes_its_process_down_fails_alone(slow, tmp_path, capsys):
    deadly, fine = specs("methods=slow", "SLOW.deadly=2"), specs("methods=ce")
    results = local.local([*deadly, *fine], tmp_path, None, workers=1)
    assert [result["status"] for result in results] == ["failed", "finished"]
    assert results[0]["error"].startswith("its process was killed by signal 11, 3 times")
    assert (RunFolder(tmp_path, deadly[0].id) / LOG).read_text().count("killed by signal 11") == 3
    assert backlog.open_runs([*deadly, *fine], tmp_path) == deadly


@pytest.mark.parametrize("workers", ["executor=inline", "workers=2"])
def test_ctrl_c_keeps_the_state_and_the_next_call_goes_on(workers, slow, tmp_path):
    words = ["methods=slow", "seeds=0,1", "SLOW.pause=0.1"]
    local.inline(specs(*words), tmp_path / "one", None)
    process = started(tmp_path / "two", *words, workers)
    until(lambda: list((tmp_path / "two").glob(f"*/{RESUME}")))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.endswith("kdbench: interrupted; finished runs are kept, and the same command resumes the rest\n")
    assert "Traceback" not in errors
    assert weights(tmp_path / "two") == {}
    assert not list((tmp_path / "two").glob("*/lease.*"))
    local.inline(specs(*words), tmp_path / "two", None)
    assert weights(tmp_path / "two") == weights(tmp_path / "one")


def test_workers_end_with_the_process_that_started_them(slow, tmp_path, monkeypatch):
    monkeypatch.setitem(LENGTH, "epochs", "Train.epochs=200")
    process = started(tmp_path, "methods=slow", "SLOW.pause=0.02", "workers=1")
    until(lambda: list(tmp_path.glob(f"*/{RESUME}")))
    (worker,) = workers_of(process)
    process.kill()
    process.communicate()
    until(lambda: not Path(f"/proc/{worker}").exists(), 15)
    assert not list(tmp_path.glob("*/lease.*"))  # it kept its state and let go, it was not killed
    assert not list(tmp_path.glob("*/result.json"))  # nor is it the run's fault that nobody listens


def test_a_cancelled_run_stops_and_the_others_go_on(slow, tmp_path):
    words = ["methods=slow", "seeds=0,1", "SLOW.pause=0.3"]
    first, second = specs(*words)
    process = started(tmp_path, *words)
    until(lambda: (tmp_path / first.id / RESUME).exists())
    (tmp_path / first.id / CANCELLED).touch()
    _, errors = process.communicate(timeout=300)
    assert "stopped; the next kdbench run resumes it" in errors
    assert list(weights(tmp_path)) == [second.id]
    assert RunFolder(tmp_path, first.id).state() == "absent"
    assert local.inline([first], tmp_path, None)[0]["provenance.sessions"] == 2


def test_what_another_living_process_does_is_left_to_it(slow, tmp_path):
    words = ["methods=slow", "SLOW.pause=0.3"]
    process = started(tmp_path, *words)
    until(lambda: list(tmp_path.glob(f"*/{RESUME}")))
    assert local.inline(specs(*words), tmp_path, None) == []  # at once, without a result
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert set(weights(tmp_path)) == {spec.id for spec in specs(*words)}


def test_a_student_waits_for_the_teacher_that_another_process_trains(tmp_path, monkeypatch):
    monkeypatch.setitem(LENGTH, "epochs", "Train.epochs=15")
    teacher, student = specs("methods=kd", "seeds=1")
    process = started(tmp_path, "methods=ce", f"seeds={teacher.seed}")
    until(lambda: (tmp_path / teacher.id / "progress.json").exists())
    (result,) = local.inline([student], tmp_path, None)
    assert result["status"] == "finished"
    assert result["teacher.run"] == teacher.id
    process.communicate(timeout=300)
    assert process.returncode == 0


def test_each_worker_has_a_gpu_or_its_share_of_the_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert gpus.shares(None) == [
        {"CUDA_VISIBLE_DEVICES": "4", "OMP_NUM_THREADS": "4"},
        {"CUDA_VISIBLE_DEVICES": "7", "OMP_NUM_THREADS": "4"},
    ]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in gpus.shares(3)] == ["4", "7", "4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.shares(3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert gpus.shares(None) == [{"OMP_NUM_THREADS": "8"}]
    assert gpus.shares(2, gpus=2) == [{"OMP_NUM_THREADS": "2"}] * 2


def test_a_run_of_several_gpus_has_them_to_itself(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert [share["CUDA_VISIBLE_DEVICES"] for share in gpus.shares(None, gpus=2)] == ["0,1", "2,3"]
    with pytest.raises(UserError, match="gpus=8, but this machine has 5 GPUs"):
        gpus.shares(None, gpus=8)


def ranks_of(process):
    """The processes that torchrun has started, below the pool."""
    (agent,) = workers_of(process)
    return [int(child) for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


@pytest.mark.exhaustive  # eight processes that import torch, for 4 s each
def test_of_a_run_in_two_processes_one_is_killed_and_it_goes_on_in_the_same_bits(slow, tmp_path):
    words = ["methods=slow", "SLOW.pause=0.05", "gpus=2", "Machine.device=cpu"]
    (spec,) = specs(*words)
    local.local([spec], tmp_path / "one", None, workers=1)
    process = started(tmp_path / "two", *words)
    until(lambda: (tmp_path / "two" / spec.id / RESUME).exists())
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    result = RunFolder(tmp_path / "two", spec.id).result()
    assert (result["provenance.gpus"], result["provenance.sessions"]) == (2, 2)
    assert weights(tmp_path / "two") == {spec.id: weights(tmp_path / "one")[spec.id]}


@pytest.mark.exhaustive
def test_two_processes_stop_together(slow, tmp_path):
    words = ["methods=slow", "SLOW.pause=0.2", "gpus=2", "Machine.device=cpu"]
    process = started(tmp_path, *words)
    until(lambda: list(tmp_path.glob(f"*/{RESUME}")))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    assert weights(tmp_path) == {}
    assert not list(tmp_path.glob("*/lease.*"))


@pytest.fixture
def small_disk(tmp_path, request):
    """A small file system: one run's states take up 2 MB, a finished run 0.35."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "none", place], capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize(
    ("workers", "small_disk"),
    [("executor=inline", "2500k"), pytest.param("workers=2", "4600k", marks=pytest.mark.exhaustive)],
    indirect=["small_disk"],
)
def test_a_full_disk_loses_nothing_and_the_sweep_goes_on_when_there_is_room(workers, small_disk, tmp_path):
    words = ["methods=ce", "seeds=0-7"]
    process = started(small_disk, *words, workers)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"the disk of {small_disk} is full" in errors
    assert "Traceback" not in errors
    finished = weights(small_disk)
    assert 0 < len(finished) < 8
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    process = started(small_disk, *words, workers)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    local.inline(specs(*words), tmp_path / "one", None)
    assert weights(small_disk) == weights(tmp_path / "one")
    assert not set(finished) & set(begun(errors))  # what was finished was not done again
    assert not [path for path in small_disk.glob("*/.*")]


@pytest.mark.parametrize(
    "words", [["workers=1"], pytest.param(["gpus=2", "Machine.device=cpu"], marks=pytest.mark.exhaustive)]
)
def test_whatever_a_method_prints_and_whatever_lies_in_the_folder_the_run_finishes(words, slow, tmp_path, monkeypatch):
    for name in ("select", "profile"):  # torch imports both of Python's own
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    process = started(tmp_path / "runs", "methods=odd", *words)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "forged" not in errors
    assert "Traceback" not in errors
    assert len(weights(tmp_path / "runs")) == 1


def descendants(pid):
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def test_sigterm_at_the_start_of_a_group_leaves_no_process_behind(slow, tmp_path):
    process = started(tmp_path, "methods=slow", "SLOW.pause=0.05", "gpus=2", "Machine.device=cpu")
    until(lambda: len(descendants(process.pid)) == 3)  # torchrun and two that import torch
    below = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    until(lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()])


def test_torchrun_ends_with_a_pool_that_was_killed(slow, tmp_path):
    process = started(tmp_path, "methods=slow", "SLOW.pause=0.05", "gpus=2", "Machine.device=cpu")
    until(lambda: workers_of(process))
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    until(lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()])
