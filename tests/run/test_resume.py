"""A run that stopped, wherever it was, ends in the very bits of one that never did; so does one whose process slept."""

import contextlib
import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time

import pytest
import torch
from examples import each_method

from kdbench.method import Share
from kdbench.plan import expand, request
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.loop.epochs import Epochs
from kdbench.run.loop.state import Outcome
from kdbench.run.resume import Damaged, Keeper, Stopped, dump, parse
from kdbench.store import lease
from kdbench.store.folder import EPOCHS, EVENTS, LOG, PROGRESS, RESUME, RESUME_BEFORE, RunFolder
from kdbench.store.lease import Held, Lost

METHODS = {name: [] for name in ("byot", "ce", "crd", "kd", "rkd")} | {"corsd": ["CORSD.class_memory_weight=0.5"]}
"""Those of the demo; all others are stopped in tests/contract/test_every_method.py."""
KILLS = int(os.environ.get("KDBENCH_KILLS", 8))
"""Disturbances at random moments, over all methods; 100 take some minutes."""
SLEEPERS = 6
"""One in so many disturbances puts the process to sleep, and wakes it when another one has taken over."""
LOST, HELD = 3, 4
"""Exit codes of `child`."""


def specs(method, *words):
    """A method's runs: three epochs of digits, with a state after each step; its teacher first."""
    usual = [
        f"methods={method}", "dataset=digits", "student=resnet8", "teacher=resnet8", "Train.epochs=3",
        "Train.batch_size=24", "Train.warmup=0", "Split.validation=0.2", "Machine.checkpoint_every=0",
        "Machine.threads=1", "Measures.corruptions=False", "Measures.images=10", *METHODS[method],
    ]  # fmt: skip
    changed = {word.partition("=")[0] for word in words}
    return expand.plan(request.parse([*(word for word in usual if word.partition("=")[0] not in changed), *words]))


def curve(folder):
    """epochs.csv without the seconds, which no two runs have in common."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in csv.DictReader((folder / EPOCHS).open())]


def record(runs, spec):
    """All that must be equal of two runs of one spec."""
    result = RunFolder(runs, spec.id).result()
    free = ("seconds.", "convergence.seconds.", "cost.peak", "cost.images", "provenance.")
    return curve(RunFolder(runs, spec.id)), {k: v for k, v in result.items() if not k.startswith(free)}


@pytest.fixture(scope="module")
def quick():
    """All test images, because processes that tests start read them all."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder with finished runs of all methods, each done in one go."""
    runs = tmp_path_factory.mktemp("undisturbed")
    for method in METHODS:
        for spec in specs(method):
            if RunFolder(runs, spec.id).state() != "finished":
                assert run(spec, runs, None)["status"] == "finished"
    return runs


def with_teacher(spec, source, runs):
    """Give a run of another folder the teacher that is there already."""
    runs.mkdir(exist_ok=True)
    for run_ in spec.teacher_runs:
        (runs / run_).symlink_to(source / run_)


@pytest.mark.parametrize("method", each_method(METHODS))
def test_a_run_interrupted_after_every_step_ends_like_one_that_never_was(method, undisturbed, tmp_path):
    spec = specs(method)[-1]
    with_teacher(spec, undisturbed, tmp_path)
    sessions = 1
    while True:
        try:
            result = run(spec, tmp_path, None, Caller(stop=lambda: True))
            break
        except Stopped:
            sessions += 1
    assert sessions == result["provenance.sessions"] >= 9
    assert record(tmp_path, spec) == record(undisturbed, spec)
    assert not (RunFolder(tmp_path, spec.id) / RESUME).exists()


def child(spec, runs):
    """Do a run as a worker does it: under its lease, and only if it is open."""
    folder = RunFolder(runs, spec.id)
    folder.path.mkdir(exist_ok=True)
    try:
        with lease.acquire(folder.path) as held:
            if folder.is_open():
                report = lambda progress: RunFolder(runs, spec.id, held.check).write(PROGRESS, {"at": progress.epoch})  # noqa: E731
                run(spec, runs, None, Caller(report=report, check=held.check))
    except Lost:
        sys.exit(LOST)
    except Held:
        sys.exit(HELD)


@pytest.fixture(scope="module")
def begun():
    """Starts `child` in a process of its own, which begins at once, with torch in it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kdbench.run.execute"])

    def begin(spec, runs):
        process = context.Process(target=child, args=(spec, runs))
        process.start()
        return process

    return begin


def put_to_sleep(process, folder):
    """Suspend a process for longer than its lease lasts."""
    os.kill(process.pid, signal.SIGSTOP)
    for path in folder.path.glob("lease.*"):
        then = path.stat().st_mtime - 2 * lease.STALE
        os.utime(path, (then, then))


def written(folder, pattern):
    """The files of a run's folder, and when each was written."""
    times = {}
    for path in folder.path.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            times[path.name] = path.stat().st_mtime_ns
    return times


def wake(process):
    with contextlib.suppress(ProcessLookupError):  # it has ended since
        os.kill(process.pid, signal.SIGCONT)


def test_disturbed_at_random_moments_runs_end_in_the_same_bits(begun, undisturbed, tmp_path):
    draw = random.Random(0)
    kills = sleeps = number = resumed = 0
    while kills + sleeps < KILLS:
        method = list(METHODS)[number % len(METHODS)]
        # Every other run writes no state within an epoch, as usual, and so asks for its lease less often.
        spec, runs = specs(method, f"Machine.checkpoint_every={60 * (number % 2)}")[-1], tmp_path / str(number)
        with_teacher(spec, undisturbed, runs)
        folder, sleepers, disturbed = RunFolder(runs, spec.id), [], 0
        frequent = EPOCHS if number % 2 else RESUME
        number += 1
        seconds = RunFolder(undisturbed, spec.id).result()["seconds.train"]
        while folder.state() != "finished":
            # Mostly after a first step or epoch of this process: most of the time passes before it.
            sign = draw.choice(["lease.*", EPOCHS, frequent])
            before = written(folder, sign)
            process = begun(spec, runs)
            while disturbed < 4 and process.is_alive() and written(folder, sign) == before:
                time.sleep(0.005)
            process.join(draw.uniform(0.0, seconds / 2) if disturbed < 4 else 1000)
            if not process.is_alive():
                assert process.exitcode in (0, LOST, HELD)
                continue
            disturbed += 1
            if (kills + sleeps) % SLEEPERS == SLEEPERS - 1:
                sleeps += 1
                put_to_sleep(process, folder)
                sleepers.append(process)
                threading.Timer(draw.uniform(0.0, 1.5), wake, [process]).start()
            else:
                kills += 1
                os.kill(process.pid, signal.SIGKILL)
                process.join()
        for process in sleepers:
            process.join(60)
            assert process.exitcode in (0, LOST, HELD)
        log = (folder / LOG).read_text() if (folder / LOG).exists() else ""
        resumed += log.count("resuming at step")
        assert "cannot be used" not in log
        assert record(runs, spec) == record(undisturbed, spec), f"{method} after {disturbed} disturbances"
        print(f"{kills} kills and {sleeps} sleepers over {number} runs, {resumed} resumptions", flush=True)
    assert sleeps
    assert resumed


def content(folder):
    """The files of a run's folder, without one that a process was just writing when it was put to sleep."""
    return {path.name: path.read_bytes() for path in folder.path.glob("[!.]*") if path.is_file()}


@pytest.mark.parametrize("woken", ["while another process trains", "when it has finished"])
def test_a_process_that_slept_while_another_took_over_adds_nothing(woken, begun, tmp_path):
    events = ["log=tensorboard"] if woken.startswith("while") else []
    words = ("Train.epochs=8", "Machine.checkpoint_every=60", *events)
    (spec,) = specs("ce", *words)
    assert run(spec, tmp_path / "undisturbed", None)["status"] == "finished"
    runs = tmp_path / "disturbed"
    runs.mkdir()
    folder = RunFolder(runs, spec.id)
    sleeper = begun(spec, runs)
    while not (folder / EPOCHS).exists():
        time.sleep(0.01)
        assert sleeper.is_alive()
    put_to_sleep(sleeper, folder)

    def report(progress):
        if progress.epoch == 2 and woken.startswith("while"):
            wake(sleeper)
        if progress.epoch == 4 and woken.startswith("while"):
            sleeper.join(30)

    with lease.acquire(folder.path) as held:
        run(spec, runs, None, Caller(report=report, check=held.check))
    before = content(folder)
    wake(sleeper)
    sleeper.join(30)
    assert sleeper.exitcode == LOST
    assert content(folder) == before
    assert record(runs, spec) == record(tmp_path / "undisturbed", spec)
    assert len(list(folder.path.glob(EVENTS))) == len(events)
    assert not (folder / LOG).exists()


def stopped(spec, runs, after):
    """Do a run up to step `after`, with a state after each step."""
    asked = iter(range(after))
    with pytest.raises(Stopped):
        run(spec, runs, None, Caller(stop=lambda: next(asked, None) is None))
    return RunFolder(runs, spec.id)


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGE = {f"cut at {tenth}0 %": lambda b, t=tenth: b[: len(b) * t // 10] for tenth in range(10)}
DAMAGE |= {f"a bit flipped at {tenth}0 %": lambda b, t=tenth: flipped(b, len(b) * t // 10) for tenth in range(10)}
DAMAGE |= {"something else": lambda b: b"PK\x03\x04" + bytes(5000)}


@pytest.fixture(scope="module")
def stopped_crd(undisturbed, tmp_path_factory):
    """The folder of a run that was stopped after three steps, and its spec."""
    runs = tmp_path_factory.mktemp("stopped")
    spec = specs("crd")[-1]
    with_teacher(spec, undisturbed, runs)
    return stopped(spec, runs, 3), spec


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_state_is_recognised_and_the_one_before_taken(how, stopped_crd, tmp_path):
    shutil.copytree(stopped_crd[0].path, tmp_path / "a")
    folder = RunFolder(tmp_path, "a")
    state, before = (parse((folder / name).read_bytes()) for name in (RESUME, RESUME_BEFORE))
    (folder / RESUME).write_bytes(DAMAGE[how]((folder / RESUME).read_bytes()))
    loaded = Keeper(folder, state["identity"], 0.0).load()
    assert loaded["step"] == before["step"] < state["step"]
    log = (folder / LOG).read_text()
    assert f"{RESUME} cannot be used: it is" in log
    assert "resuming from the one before" in log
    assert f"resuming at step {before['step']} " in log


def test_from_the_state_before_a_damaged_one_the_run_ends_in_the_same_bits(stopped_crd, undisturbed, tmp_path):
    folder, spec = stopped_crd
    with_teacher(spec, undisturbed, tmp_path)
    shutil.copytree(folder.path, tmp_path / spec.id)
    ours = RunFolder(tmp_path, spec.id)
    (ours / RESUME).write_bytes(DAMAGE["cut at 50 %"]((ours / RESUME).read_bytes()))
    run(spec, tmp_path, None)
    assert "resuming from the one before" in (ours / LOG).read_text()
    assert record(tmp_path, spec) == record(undisturbed, spec)


def test_with_both_states_damaged_the_run_starts_anew_and_says_so(undisturbed, tmp_path):
    spec = specs("ce")[-1]
    folder = stopped(spec, tmp_path, 5)
    for name in (RESUME, RESUME_BEFORE):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    result = run(spec, tmp_path, None)
    log = (folder / LOG).read_text()
    assert "the run starts again from step 0" in log
    assert "resuming at" not in log
    assert "provenance.sessions" not in result
    assert record(tmp_path, spec) == record(undisturbed, spec)


def test_the_state_of_another_run_is_not_gone_on_from(undisturbed, tmp_path):
    spec, other = specs("ce")[-1], specs("ce", "seeds=1")[-1]
    theirs, ours = stopped(other, tmp_path, 4), RunFolder(tmp_path, spec.id)
    ours.path.mkdir()
    (ours / RESUME).write_bytes((theirs / RESUME).read_bytes())
    run(spec, tmp_path, None)
    assert (
        f"it belongs to a different run ({other.id}, not {spec.id}); the run starts again from step 0"
        in (ours / LOG).read_text()
    )
    assert record(tmp_path, spec) == record(undisturbed, spec)


def keeper(tmp_path, every=0.0, **identity):
    folder = RunFolder(tmp_path, "a")
    folder.path.mkdir(exist_ok=True)
    return Keeper(folder, identity, every)


def test_another_method_file_ends_what_can_be_gone_on_from(tmp_path):
    keeper(tmp_path, run="a", method="old").save({"step": 1})
    assert keeper(tmp_path, run="a", method="old").load()["step"] == 1
    assert keeper(tmp_path, run="a", method="new").load() is None
    assert "a different method (old, not new)" in (tmp_path / "a" / LOG).read_text()


def test_what_happens_on_the_way_to_a_new_state_leaves_a_whole_one(tmp_path, monkeypatch):
    mine = keeper(tmp_path)
    for step in (1, 2):
        mine.save({"step": step})
    from kdbench.run import resume

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        mine.save({"step": 3})
    assert keeper(tmp_path).load()["step"] == 2


def test_nothing_is_written_without_the_right_to(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.path.mkdir()

    def lost():
        raise RuntimeError("lost")

    folder = RunFolder(tmp_path, "a", lost)
    for write in (
        lambda: Keeper(folder, {}, 0.0).save({"step": 1}),
        lambda: folder.begin("Train.epochs = 1\n"),
        lambda: folder.write(PROGRESS, {}),
        lambda: folder.log("a line"),
        lambda: folder.finish({"status": "failed"}),
        lambda: Epochs(folder / EPOCHS, Share(), check=lost).write(1, Outcome(), 0.1, {"loss": 1.0}),
    ):
        with pytest.raises(RuntimeError, match="lost"):
            write()
    assert list(folder.path.iterdir()) == []


def test_states_are_written_by_the_clock_and_at_epoch_ends_that_are_worth_it(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    mine = keeper(tmp_path, every=60.0)
    now[0] = 4.0
    assert not mine.due(new_epoch=True)  # four seconds are sooner done again than a file is looked after
    now[0] = 6.0
    assert mine.due(new_epoch=True)
    assert not mine.due(new_epoch=False)
    now[0] = 60.0
    assert mine.due(new_epoch=False)


def test_a_state_holds_tensors_and_plain_containers(tmp_path):
    state = {"a": torch.arange(6).reshape(2, 3), "b": {"c": [1, 2.5, None, "d"]}}
    back = parse(dump(state))
    assert torch.equal(back["a"], state["a"])
    assert back["b"] == state["b"]
    with pytest.raises(Damaged, match="empty"):
        parse(b"")


def test_an_undisturbed_run_leaves_nothing_but_its_record(undisturbed):
    for spec in specs("ce"):
        files = {path.name for path in RunFolder(undisturbed, spec.id).path.iterdir()}
        assert files == {"config.gin", EPOCHS, "checkpoint.pt", "operative.gin", "result.json"}
        assert json.loads((undisturbed / spec.id / "result.json").read_text())["status"] == "finished"
