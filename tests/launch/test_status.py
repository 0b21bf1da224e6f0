"""States of runs, from real folders and leases; SLURM's queue is told here, and asked in tests/slurm and test_jobs.py."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from kdbench.cli import selection
from kdbench.cli.commands import status
from kdbench.cli.main import main
from kdbench.launch import status as status_
from kdbench.launch.slurm.queue import Job, Slurm
from kdbench.plan import expand, request
from kdbench.store import ids as ids_
from kdbench.store import lease
from kdbench.store.folder import AGAIN, CANCELLED, CHECKPOINT, CONFIG, PROGRESS, SUBMISSION, RunFolder

TEACHER, *SPECS = expand.plan(request.parse(["methods=ce,kd,corsd", "dataset=digits", "seeds=0,1"]))
CE, CE1, KD = SPECS[:3]
WHERE = {"images": 300, "budget": 1000, "epoch": 3, "epochs": 10, "images_per_second": 100.0, "validation": None}
HOLD = "import sys, time; from pathlib import Path; from kdbench.store import lease; l = lease.acquire(Path(sys.argv[1])); print(flush=True); time.sleep(99)"  # noqa: E501


class Told(Slurm):
    """A queue that a test fills; None: squeue does not answer."""

    def __init__(self, *jobs, pending=()):
        super().__init__()
        self._queue = {job.id: job for job in jobs if job.in_queue}
        self._gone = {job.id: job.state for job in jobs if not job.in_queue}
        self._pending = frozenset(pending)

    def look(self, jobs):
        pass


@pytest.fixture
def ask(tmp_path):
    """Puts a run down, as far as it is said."""

    def put(spec, *, begun=False, progress=None, job=None, **result):
        folder = RunFolder(tmp_path, spec.id)
        folder.enqueue(spec.plain())
        if begun or progress or result:
            folder.begin(f"# {spec.command()}\n\n{spec.config}")
        if progress:
            folder.write(PROGRESS, {**progress, "at": time.time() - 7200})
        if job:
            folder.write(SUBMISSION, {"job": job, "log": str(tmp_path / ".slurm" / job)})
        if result:
            (folder / CHECKPOINT).touch()
            folder.finish({**spec.identity(), **result})
        return folder

    return put


@pytest.fixture
def finished(ask):
    return lambda spec: ask(spec, status="finished", **{"accuracy.last": 71.234, "seconds.train": 75.0})


def held(folder):
    """A process that does the run of a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def state(runs, spec, slurm=None):
    (run,) = status_.read(runs, [spec.id], slurm)
    return run.state, run.why


def test_planned_stopped_cancelled_failed_done(tmp_path, ask, finished):
    folder = ask(CE)
    assert state(tmp_path, CE) == ("planned", None)
    ask(CE, progress=WHERE)
    assert state(tmp_path, CE) == ("stopped", "2 hours ago")
    (folder / CANCELLED).touch()
    assert state(tmp_path, CE) == ("cancelled", None)
    finished(CE)
    (run,) = status_.read(tmp_path)
    assert (run.state, run.accuracy, run.seconds, run.epoch) == ("done", 71.234, 75.0, None)
    assert (run.method, run.dataset, run.student, run.seed) == ("ce", "digits", "resnet8", 0)
    (folder / CHECKPOINT).unlink()
    assert state(tmp_path, CE)[0] == "stopped", "a result whose weights are gone is no finished run"
    ask(CE, status="failed", error="the loss is not finite")
    (run,) = status_.read(tmp_path)
    assert (run.state, run.error) == ("failed", "the loss is not finite")


def test_a_run_that_is_asked_for_again_is_planned_and_what_there_was_counts_if_that_is_cancelled(tmp_path, finished):
    folder = finished(CE)
    folder.enqueue(CE.plain(), "fresh")
    assert (folder / AGAIN).exists()
    assert state(tmp_path, CE) == ("planned", "again")
    (folder / CANCELLED).touch()
    assert state(tmp_path, CE) == ("done", None)


def test_running_as_long_as_its_process_lives(tmp_path, ask):
    folder = ask(CE, progress=WHERE)
    process = held(folder)
    (run,) = status_.read(tmp_path)
    assert (run.state, run.epoch, run.epochs, run.images_per_second, run.seconds_left) == ("running", 3, 10, 100.0, 7.0)
    assert run.where == lease.this_process().host
    (folder / CANCELLED).touch()
    assert state(tmp_path, CE) == ("running", "stops, because it was cancelled")
    (folder / CANCELLED).unlink()
    process.kill()
    process.wait()
    assert state(tmp_path, CE)[0] == "stopped"


def test_a_run_that_is_measured_is_not_hung(tmp_path, ask):
    process = held(ask(CE, progress={**WHERE, "measured": 0.416}))
    assert state(tmp_path, CE) == ("running", "measuring, 42% done")
    process.kill()
    process.wait()


def test_a_run_waits_for_a_teacher_that_has_not_ended(tmp_path, ask, finished):
    ask(KD), ask(TEACHER)
    assert state(tmp_path, KD) == ("waiting", "for its teacher (resnet20), which is planned")
    process = held(ask(TEACHER, progress=WHERE))
    assert state(tmp_path, KD) == ("waiting", "for its teacher (resnet20), which is running")
    process.kill()
    finished(TEACHER)
    assert state(tmp_path, KD) == ("planned", None)


@pytest.mark.parametrize(
    ("job", "begun", "expected"),
    [
        (Job("7_1", "PENDING", "Priority"), False, ("queued", "job 7_1: Priority")),
        (Job("7_1", "PENDING", "BeginTime"), True, ("queued", "job 7_1: BeginTime")),
        (Job("7_1", "RUNNING", "None", "n1"), False, ("queued", "job 7_1 is running on n1 and has not come to it")),
        (Job("7_1", "COMPLETING", "None", "n1"), True, ("stopped", "job 7_1 is ending")),
        (Job("7_1", "TIMEOUT", in_queue=False), True, ("stopped", "job 7_1: TIMEOUT")),
        (Job("7_1", "", in_queue=False), False, ("stopped", "job 7_1 is gone")),
        (None, False, ("queued", "submitted as job 7_1; squeue does not answer here")),
        (None, True, ("stopped", "submitted as job 7_1; squeue does not answer here")),
    ],
)
def test_what_slurm_says_of_its_job(tmp_path, ask, job, begun, expected):
    ask(KD, job="7_1", begun=begun)
    assert state(tmp_path, KD, Told(job) if job else None) == expected
    ask(TEACHER)
    if job and job.state == "RUNNING":
        expected = ("waiting", "for its teacher (resnet20), which is planned")
    assert state(tmp_path, KD, Told(job) if job else None) == expected


def test_a_lease_of_a_job_that_is_to_begin_again_is_none(tmp_path, ask, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    folder = ask(CE, begun=True, job="7_1")
    with lease.acquire(folder.path):
        (run,) = status_.read(tmp_path, slurm=Told(Job("7_1", "RUNNING", "None", "n1")))
        assert (run.state, run.job) == ("running", "7_1")
        assert state(tmp_path, CE, Told(Job("7_1", "PENDING", "BeginTime"), pending="8")) == (
            "queued", "job 7_1: BeginTime",
        )  # fmt: skip


def test_slurm_is_asked_only_about_jobs_of_runs_that_have_not_ended(tmp_path, ask, finished):
    asked = []

    class Listening(Told):
        def look(self, jobs):
            asked.append(jobs)

    ask(CE, job="7", status="failed", error="no"), ask(CE1, job="8")
    status_.read(tmp_path, slurm=Listening())
    assert asked == [{"8": os.getuid()}]


def test_folders_that_are_no_runs_are_left_out(tmp_path, ask):
    ask(CE)
    for name in ("tuning", ".slurm", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "tuning" / CONFIG).touch()
    (tmp_path / "file").touch()
    assert [run.id for run in status_.read(tmp_path)] == [CE.id]


def test_runs_of_older_versions_have_no_spec(tmp_path, ask, finished):
    (finished(CE) / "spec.json").unlink()
    (ask(CE1, begun=True) / "spec.json").unlink()
    for run, spec in zip(status_.read(tmp_path), (CE, CE1), strict=True):
        assert (run.method, run.dataset, run.student, run.recipe) == ("ce", "digits", "resnet8", "quick")
        assert run.seed == spec.seed


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ([], SPECS),
        (["all"], SPECS),
        (["methods=kd,ce", "seeds=1"], [CE1, SPECS[3]]),
        (["ce"], [CE, CE1]),
        (["ce-digits-resnet8-s0", KD.id], [CE, KD]),
        (["state=planned,finished"], [s for s in SPECS if s != CE1]),
        (["state=running"], []),
        (["student=resnet8", "dataset=digits", "methods=rkd"], []),
    ],
)
def test_selections(tmp_path, ask, words, ids):
    for spec in SPECS:
        ask(spec)
    ask(CE1, begun=True)
    selected = selection.parse(words)
    chosen = selected.chosen(status_.read(tmp_path, selected.ids(tmp_path)))
    assert [run.id for run in chosen] == sorted(spec.id for spec in ids)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("method=kd", "unknown selection 'method'; did you mean 'methods'?"),
        ("SGD.lr=0.1", "unknown selection 'SGD.lr'; valid: methods, dataset, student, seeds, state, and beginnings"),
        ("methods=cosrd", "unknown method 'cosrd'; did you mean 'corsd'?"),
        ("state=runing", "unknown state 'runing'; did you mean 'running'?"),
        ("seeds=x", "seeds takes whole numbers from 0"),
        ("methods=", "'methods=' has no value"),
        ("cee-digits", f"did you mean '{CE.id}'? See all with: kdbench status --all"),
    ],
)
def test_a_wrong_word_is_one_sentence(tmp_path, ask, capsys, word, sentence):
    ask(CE)
    for command in ("status", "cancel"):
        assert main([command, word, "--runs", str(tmp_path)]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        assert sentence in line


def test_ids_are_shortened_as_far_as_they_mean_one_run():
    ids = ["ce-d-r-s1-aaaabbbb", "ce-d-r-s10-cccc", "kd-d-r-s1-aaaa1", "kd-d-r-s1-aaaa2", "odd"]
    short = ids_.short_names(ids)
    assert list(short.values()) == ["ce-d-r-s1", "ce-d-r-s10", "kd-d-r-s1-aaaa1", "kd-d-r-s1-aaaa2", "odd"]
    for id_ in ids:
        assert ids_.one(short[id_], ids) == id_


def test_status_in_a_pipe(tmp_path, ask, finished, capsys):
    ask(CE), finished(CE1)
    words = ["status", "--runs", str(tmp_path)]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == ["2 runs: 1 planned, 1 done", f"{CE.id}  planned"]
    assert main([*words, "--all"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == f"{CE1.id}  done       71.23 % in 1:15"
    ask(KD, status="failed", error="OutOfMemoryError: CUDA\n 15 GiB\n see [there]\n")
    assert main(words) == 1
    assert f"{KD.id}  failed     OutOfMemoryError: CUDA … see [there]" in capsys.readouterr().out
    assert main([*words, "ce-digits"]) == 0
    assert capsys.readouterr().out.startswith("2 runs: 1 planned, 1 done\n")
    assert main([*words, "--json", "state=done"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found == found | {"id": CE1.id, "state": "done", "accuracy": 71.234, "seed": 1, "error": None}


def test_no_folder_and_no_runs_are_one_sentence(tmp_path, capsys):
    assert main(["status", "--runs", str(tmp_path / "no")]) == 0
    assert capsys.readouterr().out.startswith(f"there is no folder {tmp_path / 'no'}: ")
    assert main(["status", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"there are no runs in {tmp_path}\n"
    assert main(["status", "--json", "--runs", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_table_that_fits(tmp_path, ask, finished, width):
    many = expand.plan(request.parse(["methods=ce", "dataset=digits", f"seeds={','.join(map(str, range(30)))}"]))
    for spec in many[:26]:
        ask(spec)
    finished(many[26])
    ask(
        many[27],
        status="failed",
        error="the loss is not finite at step 51 (terms kl, ranking); a smaller SGD.lr may help",
    )
    runs = status_.read(tmp_path)
    console = Console(width=width, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(status.view(runs, [run.id for run in runs], everything=False))
    lines = console.export_text().splitlines()
    assert lines[0] == "28 runs: 26 planned, 1 failed, 1 done"
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "ce-digits-resnet8-s27  failed" in text
    assert "not shown: 6 planned (kdbench status state=planned)" in text
    assert "More of a run: kdbench logs ce-digits-resnet8-s27" in text
    assert "s26" not in text


@pytest.mark.parametrize("height", [10, 24, 60])
def test_watch_draws_no_more_than_the_terminal_has_lines(tmp_path, ask, height):
    many = expand.plan(request.parse(["methods=ce", "dataset=digits", f"seeds={','.join(map(str, range(60)))}"]))
    for number, spec in enumerate(many):
        ask(spec, **({"status": "failed", "error": "no " * 50} if number % 3 else {}))
    runs = status_.read(tmp_path)
    console = Console(width=80, height=height, force_terminal=True)
    for everything in (True, False):
        shown = status._fitting(console, runs, [run.id for run in runs], everything)
        assert len(console.render_lines(shown)) < height


def test_watch_in_a_pipe_tells_changes_until_all_have_ended(tmp_path, ask, finished, capsys, monkeypatch):
    monkeypatch.setattr(status, "EVERY", 0.02)
    ask(CE), ask(CE1)
    done = threading.Thread(target=main, args=[["status", "--watch", "--runs", str(tmp_path)]])
    done.start()
    time.sleep(0.3)
    finished(CE)
    time.sleep(0.3)
    (RunFolder(tmp_path, CE1.id) / CANCELLED).touch()
    done.join(10)
    assert not done.is_alive()
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == ("2 runs: 2 planned", "2 runs: 1 cancelled, 1 done")


def test_a_thousand_runs_take_no_second(tmp_path, ask):
    text = json.dumps(CE.plain())
    for number in range(1000):
        (tmp_path / f"ce-{number}").mkdir()
        (tmp_path / f"ce-{number}" / "spec.json").write_text(text)
    began = time.perf_counter()
    assert len(status_.read(tmp_path)) == 1000
    assert time.perf_counter() - began < 1
