"""Reading what a worker writes, whatever it writes; programs of one line stand in for workers."""

import json
import os
import queue
import signal
import subprocess
import sys

import pytest

from kdbench.launch import worker_process
from kdbench.launch.worker_process import LONGEST, TAIL, WorkerProcess


def read(program):
    """The messages of a program, its last lines of output, and its exit status."""
    process = subprocess.Popen([sys.executable, "-SEc", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    worker, inbox, messages = WorkerProcess(process, 0), queue.SimpleQueue(), []
    worker.read_into(inbox)
    while (message := inbox.get(timeout=30)[1]) is not None:
        messages.append(message)
    status = process.wait(30)
    worker.ending(status)
    return messages, list(worker.tail), status


@pytest.mark.parametrize("stream", [1, 2])
def test_bytes_that_are_not_utf8_are_shown_and_reading_goes_on(stream):
    lines = r"b'Ger\xe4t\n' + 20000 * b'plain \xc3\xa4\n' + b'\xff\x00 no end'"
    messages, tail, status = read(
        f"import os; os.write({stream}, b''); out = {lines}\nwhile out: out = out[os.write({stream}, out):]"
    )
    assert status == 0
    read_lines = [worker_process.as_text(line) for line in messages] if stream == 1 else tail
    assert read_lines[-2:] == ["plain ä", "\\xff\x00 no end"]
    assert len(read_lines) == (20002 if stream == 1 else TAIL)
    assert stream == 2 or read_lines[0] == "Ger\\xe4t"


def test_a_line_without_an_end_is_cut_so_that_it_does_not_fill_the_memory():
    messages, tail, _ = read(
        f"import os, sys\nfor _ in range(50): sys.stderr.write('#' * {LONGEST})\nos.write(1, b'.' * {LONGEST + 3})"
    )
    assert [len(line) for line in messages] == [LONGEST, 3]
    assert [len(line) for line in tail] == [LONGEST] * TAIL


def test_a_reader_that_fails_reports_it():
    class Failing:
        def readline(self, _):
            raise OSError("the pipe has burst")

    process = subprocess.Popen(["true"], stderr=subprocess.PIPE)
    process.stdout = Failing()
    inbox = queue.SimpleQueue()
    WorkerProcess(process, 0).read_into(inbox)
    assert str(inbox.get(timeout=10)[1]) == "the pipe has burst"
    assert inbox.get(timeout=10)[1] is None
    process.wait()


def test_what_the_kernel_killed_for_memory_is_named_so(tmp_path):
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 0\n")
    process = subprocess.Popen(["true"])
    worker = WorkerProcess(process, 0, _oom_kills=worker_process.OomKills([counter]))
    assert worker.ending(-signal.SIGKILL) == "killed by signal 9"
    counter.write_text("oom_kill 1\n")
    assert worker.ending(-signal.SIGKILL) == "killed by signal 9 (out of memory)"
    assert worker.ending(1) == "ended with status 1 (out of memory)"  # torchrun, one of whose processes was killed
    assert worker.ending(-signal.SIGSEGV) == "killed by signal 11"
    process.wait()


SHOW = "import json, os, sys; print(json.dumps([sys.path, dict(os.environ), sys.argv]))"


def test_a_worker_finds_the_modules_that_the_command_finds(tmp_path, monkeypatch):
    """Under the launcher too; and it is not taken for one of the group that the pool itself may be one of."""
    own = tmp_path / "own"
    for folder in (tmp_path / "here", own / "kdbench" / "launch"):
        folder.mkdir(parents=True)
    (tmp_path / "here" / "json.py").write_text("raise SystemExit('the wrong json')")
    for name in ("worker", "torchrun"):
        (own / "kdbench" / "launch" / f"{name}.py").write_text(SHOW)
    for package in (own / "kdbench", own / "kdbench" / "launch"):
        (package / "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(own))
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("PET_NNODES", "3")
    monkeypatch.setenv("RANKING", "kept")
    for launcher in ([], ["--nproc-per-node=2"]):
        inbox = queue.SimpleQueue()
        worker = worker_process.start(["RUNS", "ID"], launcher, {"OMP_NUM_THREADS": "3"}, 0, inbox)
        path, environment, words = json.loads(inbox.get(timeout=30)[1])
        assert worker.process.wait() == 0
        assert str(own) in path
        assert str(tmp_path / "here") not in path
        assert "" not in path
        assert environment["OMP_NUM_THREADS"] == "3"
        assert environment["RANKING"] == "kept"
        assert not {"WORLD_SIZE", "PET_NNODES"} & set(environment)
        if launcher:
            expected = [str(os.getpid()), *launcher, "--no-python", sys.executable, "-P", "-m", "kdbench.launch.worker"]
            assert words[1:] == [*expected, "RUNS", "ID"]
        else:
            assert words[1:] == ["RUNS", "ID"]
