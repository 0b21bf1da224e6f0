"""Runs that other processes have: left alone, waited for, taken over; and what a command says of them at its end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from kdbench.cli.main import main
from kdbench.launch import display, unfinished, work, worker
from kdbench.plan import expand, request
from kdbench.run import execute  # noqa: F401  (torch, which takes longer to import than these leases last)
from kdbench.store import lease
from kdbench.store.folder import CANCELLED, CHECKPOINT, RunFolder

TEACHER, *SPECS = expand.plan(request.parse(["methods=ce,kd", "dataset=digits", "seeds=0,1"]))
CE, CE1, KD = SPECS[:3]
HOLD = "import sys, time; from pathlib import Path; from kdbench.store import lease; l = lease.acquire(Path(sys.argv[1])); print(flush=True); time.sleep(99)"  # noqa: E501
FOREIGN = {
    "host": "3f2a9c1b7d10",
    "boot": "0",
    "namespace": "pid:[1]",
    "pid": 7,
    "started": "1",
    "job": "",
    "restart": 0,
}


@pytest.fixture
def folder(tmp_path):
    """Puts a run down that is to be done."""

    def put(spec):
        folder = RunFolder(tmp_path, spec.id)
        folder.enqueue(spec.plain())
        return folder

    return put


@pytest.fixture
def held():
    """Holds the lease of a run in a process of this machine."""
    processes = []

    def hold(folder):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE)
        processes.append(process)
        process.stdout.readline()
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()


def foreign(folder):
    (folder / "lease.1").write_text(json.dumps(FOREIGN))


def finish(spec, runs, data, caller):
    """Does a run at once."""
    folder = RunFolder(runs, spec.id, caller.check)
    (folder / CHECKPOINT).touch()
    folder.finish({**spec.identity(), "status": "finished", "accuracy.last": 60.0})
    return folder.result() | {"seconds.train": 1.0, "cost.images_per_second": 1.0}


def do(specs, runs, wait=False):
    with worker.Stop() as stop:
        work.work(specs, runs, None, display.Plain(len(specs)), stop, finish, wait)


def test_of_a_killed_container_it_is_said_at_once_whose_lease_it_is_and_how_long_it_lasts(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(lease, "STALE", 2.0)
    foreign(folder(CE))
    folder(CE1)
    do([CE, CE1], tmp_path)
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == (
        f"{CE.id}: waiting for process 7 on 3f2a9c1b7d10, which has the lease of this run and may have ended: "
        "without a sign of life the run is taken over in 2 s"
    )
    assert unfinished.unfinished([CE, CE1], tmp_path).status == 0


def test_what_a_living_process_does_is_left_to_it_and_is_a_status_of_its_own(folder, held, tmp_path, capsys):
    process = held(folder(CE))
    folder(CE1)
    began = time.monotonic()
    do([CE, CE1], tmp_path)
    assert time.monotonic() - began < 3
    found = unfinished.unfinished([CE, CE1], tmp_path)
    assert (found.status, found.ids) == (unfinished.ELSEWHERE, {CE.id}) == (3, {CE.id})
    (sentence,) = found.sentences(tmp_path)
    assert f"1 run ({CE.id}) is still being done by process {process.pid} on " in sentence
    assert sentence.endswith("; the same command with --wait waits for it")


def test_with_wait_it_is_waited_for_and_taken_over_when_its_process_dies(folder, held, tmp_path, capsys):
    process = held(folder(CE))
    timer = threading.Timer(1.5, process.kill)
    timer.start()
    do([CE], tmp_path, wait=True)
    assert unfinished.unfinished([CE], tmp_path).status == 0
    lines = capsys.readouterr().err.splitlines()
    assert [f"waiting for process {process.pid} on " in line for line in lines] == [True, False, False]


def test_a_frozen_process_is_waited_for_until_its_lease_is_stale(folder, held, tmp_path, monkeypatch, capsys):
    process = held(folder(CE))
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    monkeypatch.setattr(lease, "STALE", 2.0)
    do([CE], tmp_path)
    assert "may have ended" in capsys.readouterr().err
    assert unfinished.unfinished([CE], tmp_path).status == 0


def test_a_student_waits_for_the_teacher_that_another_process_trains_and_says_so(folder, held, tmp_path, capsys):
    process = held(folder(TEACHER))
    folder(KD)
    found = unfinished.unfinished([KD], tmp_path)
    assert list(found.elsewhere.values()) == [[KD.id]]
    timer = threading.Timer(1.5, process.kill)
    timer.start()
    do([KD], tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert f"{TEACHER.id}: waiting for process {process.pid} on " in lines[0]
    assert RunFolder(tmp_path, KD.id).state() == RunFolder(tmp_path, TEACHER.id).state() == "finished"


def test_runs_that_are_removed_or_cancelled_meanwhile_are_reported(folder, tmp_path):
    for spec in SPECS[:3]:
        folder(spec)
    shutil.rmtree(tmp_path / CE.id)
    (tmp_path / CE1.id / CANCELLED).touch()
    do([CE, CE1], tmp_path)
    assert not (tmp_path / CE.id).exists()
    found = unfinished.unfinished([CE, CE1, KD], tmp_path)
    assert (found.removed, found.cancelled, found.left, found.status) == ([CE.id], [CE1.id], [KD.id], 1)
    assert found.sentences(tmp_path) == [
        f"1 run ({CE.id}) is lost: the folder was removed from {tmp_path} meanwhile",
        f"1 run ({CE1.id}) is cancelled; the same command requests it again",
        f"1 run ({KD.id}) is unfinished, and no process is doing it; the same command resumes it",
    ]


@pytest.mark.parametrize("workers", ["executor=inline", "executor=local"])
def test_a_command_whose_folder_of_runs_is_removed_says_what_is_lost(workers, tmp_path, capsys):
    runs = tmp_path / "runs"

    def remove():
        while not list(runs.glob("*/epochs.csv")):
            time.sleep(0.05)
        shutil.move(runs, tmp_path / "elsewhere")

    thread = threading.Thread(target=remove)
    thread.start()
    words = ["methods=ce", "seeds=0,1", "Train.epochs=2000", "Measures.corruptions=False", "Measures.images=10"]
    assert main(["run", *words, workers, "--runs", str(runs)]) == 1
    thread.join()
    shown = capsys.readouterr().err
    assert "stopped, because its folder was removed" in shown
    assert f"2 runs ({CE.id.rpartition('-')[0]}" in shown
    assert f"are lost: the folder was removed from {runs} meanwhile" in shown
    assert not runs.exists()


def test_the_command_ends_with_3_while_another_process_does_its_run(held, tmp_path, capsys):
    folder = RunFolder(tmp_path, CE.id)
    folder.enqueue(CE.plain())
    held(folder)
    words = ["run", "methods=ce", "dataset=digits", "seeds=0", "--runs", str(tmp_path)]
    assert main(words) == 3
    assert "the same command with --wait waits for it" in capsys.readouterr().err
    assert main([*words, "executor=slurm", "--wait"]) == 2
    assert "kdbench status --watch" in capsys.readouterr().err
