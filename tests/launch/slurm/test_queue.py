"""What is made of the answers of squeue, sacct and scancel; programs that write down how they were called stand in for them."""

import os

import pytest

from kdbench.launch.slurm import queue
from kdbench.launch.slurm.queue import QueuedJob, SlurmQueue

QUEUE = "7_1|7|PENDING||Resources\n7_2|9|RUNNING|n1|None\n8|8|PENDING||(Req|Node) odd\n"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Makes a program; the list that comes back has its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in ("squeue", "sacct", "scancel"):  # not those of this machine
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
        (folder / name).chmod(0o755)

    def make(name, output="", status=0, error=""):
        calls, out = folder / f"{name}.calls", folder / f"{name}.out"
        out.write_text(output)
        (folder / name).write_text(
            f'#!/bin/sh\necho "$@" >>{calls}\n[ -n "$SQUEUE_STATES" ] && exit 1\ncat {out}\necho "{error}" >&2\nexit {status}\n'
        )
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return make


def test_one_call_of_squeue_and_one_of_sacct_for_those_that_have_gone(programs, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")  # what the user set for the own eyes
    asked = programs("squeue", QUEUE)
    accounts = programs("sacct", "5_1|TIMEOUT\n5_2|CANCELLED by 1000\n6|RUNNING\n5_[3-4]|PENDING\n")
    slurm = SlurmQueue()
    slurm.look(dict.fromkeys(["7_1", "7_2", "8", "5_1", "5_2", "6", "4"], 4321))
    assert slurm.job("7_1") == QueuedJob("7_1", "PENDING", "Resources", number="7")
    assert slurm.job("7_2") == QueuedJob("7_2", "RUNNING", "None", "n1", "9")
    assert slurm.job("8").reason == "(Req|Node) odd"
    assert [slurm.job(id_).state for id_ in ("5_1", "5_2", "6", "4")] == ["TIMEOUT", "CANCELLED", "", ""]
    assert not any(slurm.job(id_).in_queue for id_ in ("5_1", "5_2", "6", "4"))
    assert (slurm.is_pending("7"), slurm.is_pending("9")) == (True, False)
    (call,) = asked()
    assert f"--user={','.join(map(str, sorted({os.getuid(), 4321})))}" in call.split()
    (call,) = accounts()
    assert "--jobs=4,5,6" in call.split()


def test_odd_bytes_in_an_answer_are_shown_and_change_nothing_else(programs, tmp_path):
    programs("squeue"), programs("sacct", "5|FAILED\n"), programs("scancel", status=1)
    (tmp_path / "bin" / "squeue.out").write_bytes(b"7|7|PENDING||f\xfcr sp\xe4ter\n8|8|RUNNING|n1|None\n")
    scancel = tmp_path / "bin" / "scancel"
    scancel.write_text("#!/bin/sh\nprintf 'scancel: Ger\\344t\\n' >&2; exit 1\n")
    slurm = SlurmQueue()
    slurm.look({"7": 1, "8": 1, "5": 1})
    assert slurm.job("7").reason == "f\\xfcr sp\\xe4ter"
    assert (slurm.job("8").state, slurm.job("5").state) == ("RUNNING", "FAILED")
    assert queue.cancel(["7"]) == "scancel: Ger\\xe4t"


def test_slurm_is_left_alone_for_some_seconds_and_where_there_is_nothing_to_ask(programs, monkeypatch):
    asked, accounts = programs("squeue", QUEUE), programs("sacct", "5|FAILED\n")
    slurm = SlurmQueue()
    slurm.look({})
    assert asked() == []
    slurm.look({"7_1": 1})
    slurm.look({"7_1": 1})
    assert (len(asked()), len(accounts())) == (1, 0)
    slurm.look({"7_1": 1, "5": 1})
    assert (len(asked()), len(accounts())) == (2, 1)
    monkeypatch.setattr(queue, "EVERY", 0.0)
    slurm.look({"7_1": 1, "5": 1})
    assert (len(asked()), len(accounts())) == (3, 1)
    assert slurm.job("5").state == "FAILED"


def test_nothing_is_known_where_squeue_is_missing_or_fails_or_hangs(programs, monkeypatch, capfd):
    slurm = SlurmQueue()
    slurm.look({"7_1": 1})
    assert slurm.job("7_1") is None
    programs("squeue", QUEUE, status=1, error="slurm_load_jobs error: Unable to contact slurm controller")
    slurm = SlurmQueue()
    slurm.look({"7_1": 1})
    assert slurm.job("7_1") is None
    monkeypatch.setenv("PATH", "/nowhere")
    slurm = SlurmQueue()
    slurm.look({"7_1": 1})
    assert slurm.job("7_1") is None
    assert capfd.readouterr() == ("", "")


def test_a_job_is_gone_where_there_are_no_accounts(programs, capfd):
    programs("squeue", QUEUE), programs("sacct", status=1, error="Slurm accounting storage is disabled")
    slurm = SlurmQueue()
    slurm.look({"5": 1})
    assert slurm.job("5") == QueuedJob("5", "", in_queue=False)
    assert capfd.readouterr() == ("", "")


def test_scancel(programs):
    asked = programs("scancel")
    assert queue.cancel(["7_1", "8"]) is None
    assert asked() == ["7_1 8"]
    programs("scancel", status=1, error="scancel: error: Access/permission denied")
    assert queue.cancel(["7_1"]) == "scancel: error: Access/permission denied"


def test_the_jobs_of_this_user_with_their_reasons(programs):
    asked = programs("squeue", QUEUE)
    jobs = queue.read([os.getuid()])
    assert {id_: job.state for id_, job in jobs.items()} == {"7_1": "PENDING", "7_2": "RUNNING", "8": "PENDING"}
    assert f"--user={os.getuid()}" in asked()[0].split()
    programs("squeue", status=1)
    assert queue.read([os.getuid()]) is None
