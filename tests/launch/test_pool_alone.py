"""The pool without training: programs of one line stand in for its workers."""

import resource
import subprocess
import sys
import time

import pytest

from kdbench.errors import RunError
from kdbench.launch import backlog, pool
from kdbench.launch.worker_process import WorkerProcess
from kdbench.plan import expand, request

SPECS = expand.plan(request.parse(["methods=ce", "dataset=digits"]))


class Shown:
    """A display that keeps its notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def pool_of(tmp_path, monkeypatch):
    """A pool whose workers are a program of one line; returned with its display."""

    def make(program):
        def start(words, launcher, environment, number, inbox):
            command = [sys.executable, "-SEc", program]
            worker = WorkerProcess(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE), number)
            worker.read_into(inbox)
            return worker

        monkeypatch.setattr(pool.worker_process, "start", start)
        (spec,) = SPECS
        backlog.enqueue([spec], tmp_path)
        shown = Shown()
        return pool.Pool([spec], tmp_path, None, shown), shown

    return make


def test_a_worker_that_does_not_get_ready_is_shown_with_its_last_lines(pool_of, monkeypatch):
    monkeypatch.setattr(pool, "SILENCE", 0.5)
    waits = "import sys, time; print('cannot resolve no-such-name', file=sys.stderr, flush=True); time.sleep(3)"
    one, shown = pool_of(waits)
    one.run()
    assert shown.notes[0].splitlines()[0].startswith("a worker has been starting for ")
    assert shown.notes[0].splitlines()[1:] == ["cannot resolve no-such-name"]
    one, shown = pool_of('import time; print(\'{"event": "ready"}\', flush=True); time.sleep(2)')
    one.run()
    assert shown.notes == []


def test_a_reader_that_fails_ends_the_pool(pool_of, monkeypatch):
    def burst(stream):
        raise OSError("the pipe has burst")

    monkeypatch.setattr(pool.worker_process, "_lines", burst)
    one, _ = pool_of("import time; time.sleep(60)")
    with pytest.raises(RunError, match="the output of a worker cannot be read: the pipe has burst"):
        one.run()


def test_workers_that_cannot_start_for_a_limit_of_memory_name_it(pool_of):
    before = resource.getrlimit(resource.RLIMIT_AS)
    one, _ = pool_of("import sys; sys.exit('no memory')")
    resource.setrlimit(resource.RLIMIT_AS, (1 << 42, before[1]))
    try:
        with pytest.raises(
            RunError, match=r"before it began a run, 3 times \(ulimit -v is 4294967296 kB\)\nno memory$"
        ):
            one.run()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_process_that_a_killed_worker_has_forked_does_not_keep_the_pool_waiting(pool_of, monkeypatch):
    monkeypatch.setattr(pool, "GRACE", 0.5)
    one, _ = pool_of("import os, time; os.fork() or time.sleep(30)")
    began = time.monotonic()
    one.run()
    assert time.monotonic() - began < 20


def test_noise_among_the_messages_is_kept_with_the_output(pool_of):
    one, _ = pool_of(r"import os, sys; os.write(1, b'[]\n{}\n\xff\n' + 2000 * b'[' + b'\n7\n'); sys.exit(3)")
    with pytest.raises(RunError, match=r"was ended with status 3 before it began a run") as caught:
        one.run()
    assert str(caught.value).splitlines()[1:4] == ["[]", "{}", "\\xff"]
