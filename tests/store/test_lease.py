import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from kdbench.store import lease
from kdbench.store.lease import Held, Lost
from kdbench.store.owner import this_process

HOLD = """
import sys, time
from pathlib import Path
from kdbench.store import lease
held = lease.acquire(Path(sys.argv[1]))
print(flush=True)
time.sleep(99)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def age(folder, number, seconds):
    """Make a lease look untouched for so long."""
    then = time.time() - seconds
    os.utime(folder / f"lease.{number}", (then, then))


def foreign(folder, number=1, **changed):
    """A lease of a process on another machine."""
    owner = {"host": "elsewhere", "boot": "b", "namespace": "n", "pid": 1, "started": "1", "job": "", "restart": 0}
    (folder / f"lease.{number}").write_text(json.dumps({**owner, **changed}))


def test_a_lease_is_held_once_and_can_be_had_again_when_released(tmp_path):
    with lease.acquire(tmp_path) as held:
        held.check()
        assert lease.owner(tmp_path) == this_process()
        with pytest.raises(Held, match=f"process {os.getpid()} on "):
            lease.acquire(tmp_path)
    assert names(tmp_path) == []
    assert lease.owner(tmp_path) is None
    lease.acquire(tmp_path).release()


def hold(folder, told):
    with lease.acquire(folder):
        told.put(os.getpid())
        time.sleep(60)


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    process = context.Process(target=hold, args=(tmp_path, told))
    process.start()
    pid = told.get(timeout=10)
    with pytest.raises(Held, match=f"process {pid} on "):
        lease.acquire(tmp_path)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)  # a zombie now: its parent has not asked for its end
    with lease.acquire(tmp_path):
        assert names(tmp_path) == ["lease.1", "lease.2"]
    process.join()
    assert names(tmp_path) == []


def test_another_machines_lease_counts_until_it_was_untouched_for_too_long(tmp_path):
    foreign(tmp_path)
    with pytest.raises(Held, match="process 1 on elsewhere"):
        lease.acquire(tmp_path)
    age(tmp_path, 1, lease.STALE - 10)
    with pytest.raises(Held):
        lease.acquire(tmp_path)
    age(tmp_path, 1, lease.STALE + 1)
    lease.acquire(tmp_path).release()


def test_a_requeued_job_knows_that_the_one_before_is_dead(tmp_path, monkeypatch):
    foreign(tmp_path, job="77", restart=0)
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    with pytest.raises(Held, match=r"\(job 77\)"):
        lease.acquire(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with pytest.raises(Held):
        lease.acquire(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    lease.acquire(tmp_path).release()


def test_an_owner_that_slept_too_long_finds_out(tmp_path):
    slept = lease.acquire(tmp_path)
    foreign(tmp_path, 2)  # what another machine does with a stale lease
    with pytest.raises(Lost):
        slept.check()
    slept.release()
    assert names(tmp_path) == ["lease.2"]  # the other's stays
    with pytest.raises(Lost):
        slept.check()


def test_an_owner_waits_for_a_newcomer_that_withdraws(tmp_path):
    """It listed the folder before this lease was taken, and took the next number afterwards."""
    with lease.acquire(tmp_path) as held:
        foreign(tmp_path, 2)
        threading.Timer(lease.WITHDRAWAL / 4, (tmp_path / "lease.2").unlink).start()
        held.check()
        assert names(tmp_path) == ["lease.1"]


def test_an_owner_whose_lease_or_folder_was_removed_finds_out(tmp_path):
    folder = tmp_path / "run"
    held = lease.acquire(folder)
    (folder / "lease.1").unlink()
    with pytest.raises(Lost, match="its lease was removed"):
        held.check()
    shutil.rmtree(folder)
    with pytest.raises(Lost, match="its folder was removed"):
        held.check()
    held.release()
    assert not folder.exists()


@pytest.mark.parametrize("ahead", [-7200, 130, 7200])
def test_a_clock_that_differs_from_the_file_systems_does_not_matter(ahead, tmp_path, monkeypatch):
    (tmp_path / "live").mkdir()
    (tmp_path / "dead").mkdir()
    foreign(tmp_path / "live")
    foreign(tmp_path / "dead")
    age(tmp_path / "dead", 1, lease.STALE + 1)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + ahead)
    assert list(lease.owners([tmp_path / "live", tmp_path / "dead"])) == [tmp_path / "live"]
    with pytest.raises(Held, match="process 1 on elsewhere"):
        lease.acquire(tmp_path / "live")
    lease.acquire(tmp_path / "dead").release()


@pytest.mark.parametrize("ahead", [-7200, 130, 7200])
def test_where_the_file_systems_clock_is_unknown_a_heartbeat_that_moves_counts(ahead, tmp_path, monkeypatch):
    def read_only(**_):
        raise OSError(30, "Read-only file system")

    right = time.time
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", read_only)
    monkeypatch.setattr(time, "time", lambda: right() + ahead)
    monkeypatch.setattr(lease, "WATCH", 0.3)
    (tmp_path / "live").mkdir()
    (tmp_path / "dead").mkdir()
    foreign(tmp_path / "live")
    foreign(tmp_path / "dead")
    beat = threading.Timer(0.1, os.utime, [tmp_path / "live" / "lease.1"])
    beat.start()
    assert list(lease.owners([tmp_path / "live", tmp_path / "dead"])) == [tmp_path / "live"]
    beat.join()


def test_of_two_leases_the_newest_names_the_owner(tmp_path):
    foreign(tmp_path, 1)
    foreign(tmp_path, 2, pid=2)
    assert lease.owner(tmp_path).pid == 2


def test_a_process_that_is_suspended_is_not_dead_and_not_awake(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        owner = lease.owner(tmp_path)
        assert (owner.is_awake(), owner.is_dead()) == (True, False)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert (owner.is_awake(), owner.is_dead()) == (False, False)
        process.kill()
        process.wait()
        assert (owner.is_awake(), owner.is_dead()) == (False, True)


def test_the_heartbeat_touches(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT", 0.02)
    with lease.acquire(tmp_path) as held:
        age(tmp_path, 1, 1000)
        time.sleep(0.3)
        assert time.time() - (tmp_path / "lease.1").stat().st_mtime < 100
        held.check()


OWNER = {"host": "h", "boot": "b", "namespace": "n", "pid": 1, "started": "1", "job": "", "restart": 0}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[1]", '{"pid": 1}', "[" * 50_000, "\xff"),
        *(
            json.dumps({**OWNER, **wrong})
            for wrong in ({"pid": "../../1"}, {"pid": 10**40}, {"host": 1}, {"restart": None})
        ),
    ],
)
def test_a_torn_lease_counts_by_its_age(content, tmp_path):
    (tmp_path / "lease.3").write_text(content)
    with pytest.raises(Held, match="unknown machine"):
        lease.acquire(tmp_path)
    age(tmp_path, 3, lease.STALE + 1)
    with lease.acquire(tmp_path):
        assert names(tmp_path) == ["lease.3", "lease.4"]


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_no_lease(tmp_path, make):
    make(tmp_path / "lease.3")
    assert lease.owner(tmp_path) is None
    with lease.acquire(tmp_path) as held:
        held.check()
        assert names(tmp_path) == ["lease.3", "lease.4"]
    assert "lease.4" not in names(tmp_path)


PROGRAM = """
import sys, time, random, os
from pathlib import Path
from kdbench.store import lease
folder, inside = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(40):
    try:
        with lease.acquire(folder) as held:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another process is in here
            time.sleep(random.uniform(0, 0.004))
            held.check()
            os.unlink(inside)
            print("in")
            if random.random() < 0.1:
                os._exit(0)  # without a release
    except lease.Held:
        time.sleep(random.uniform(0, 0.004))
"""


def test_of_many_processes_one_is_in(tmp_path):
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(tmp_path / "inside")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    ends = [process.communicate(timeout=60) for process in processes]
    assert all("FileExistsError" not in errors for _, errors in ends), ends
    assert all(process.returncode == 0 for process in processes), ends
    assert sum(out.count("in") for out, _ in ends) >= 6
