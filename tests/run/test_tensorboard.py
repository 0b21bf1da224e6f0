"""`log=tensorboard`: what TensorBoard reads is what epochs.csv says, however the run came to its end."""

import csv
import importlib.util
import time
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from kdbench.cli.main import main
from kdbench.plan import expand, request
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.resume import Stopped
from kdbench.store.folder import EPOCHS, EVENTS, RunFolder

SHORT = [
    "dataset=digits", "student=resnet8", "Train.epochs=4", "Train.warmup=0", "Train.batch_size=24",
    "Split.validation=0.2", "Machine.threads=1", "Measures.corruptions=False", "Measures.images=10",
]  # fmt: skip


def spec(*words, method="byot"):
    (found,) = expand.plan(request.parse([f"methods={method}", *SHORT, *words]))
    return found


def curves(folder):
    """By tag, its steps and values, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a second

    events = EventAccumulator(str(folder.path), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, np.float32(e.value)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(folder):
    """The same from epochs.csv."""
    found = {}
    for line in csv.DictReader((folder / EPOCHS).open()):
        for column, value in line.items():
            if column != "epoch" and value:
                found.setdefault(column.replace(".", "/"), []).append((int(line["epoch"]), np.float32(value)))
    return found


def files(folder):
    return sorted(path.name for path in folder.path.glob(EVENTS))


def test_events_say_what_epochs_csv_says(tmp_path):
    one = spec("log=tensorboard")
    assert run(one, tmp_path, None)["status"] == "finished"
    folder = RunFolder(tmp_path, one.id)
    shown = curves(folder)
    assert shown == expected(folder)
    assert {"images", "seconds", "lr", "accuracy/val", "loss", "loss/ce", "loss/exit_ce"} <= set(shown)
    assert [step for step, _ in shown["loss"]] == [1, 2, 3, 4]


def test_it_is_no_part_of_the_run(tmp_path):
    with_log, without = spec("log=tensorboard"), spec()
    assert (with_log.id, with_log.protocol, with_log.command()) == (without.id, without.protocol, without.command())
    run(without, tmp_path, None)
    assert files(RunFolder(tmp_path, without.id)) == []


def test_an_epoch_is_there_while_the_run_goes_on(tmp_path):
    one, seen = spec("log=tensorboard"), []
    folder = RunFolder(tmp_path, one.id)

    def report(progress):
        if progress.measured is None:
            seen.append((progress.epoch, len(curves(folder)["loss"])))

    run(one, tmp_path, None, Caller(report=report))
    assert [epoch for epoch, _ in seen] == [steps for _, steps in seen] == [1, 2, 3, 4]


@pytest.mark.parametrize("first", ["log=tensorboard", "Machine.log="])
def test_stopped_after_every_step_no_epoch_is_missing_or_twice(tmp_path, first):
    one = spec(first, "Machine.checkpoint_every=0")
    with pytest.raises(Stopped):
        run(one, tmp_path, None, Caller(stop=lambda: True))
    one = spec("log=tensorboard", "Machine.checkpoint_every=0")
    while True:
        try:
            result = run(one, tmp_path, None, Caller(stop=lambda: True))
            break
        except Stopped:
            pass
    folder = RunFolder(tmp_path, one.id)
    assert result["provenance.sessions"] > 4
    assert curves(folder) == expected(folder)
    assert len(files(folder)) == 1


class Killed(BaseException):
    """As SIGKILL would: nothing is written any more."""


def test_epochs_that_were_trained_twice_are_there_once(tmp_path):
    one = spec("log=tensorboard", "Machine.checkpoint_every=1000")
    folder = RunFolder(tmp_path, one.id)
    asked = iter(range(3))
    with pytest.raises(Stopped):
        run(one, tmp_path, None, Caller(stop=lambda: next(asked, None) is None))

    def kill(progress):
        if progress.epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        run(one, tmp_path, None, Caller(report=kill))
    assert len(curves(folder)["loss"]) == 3
    run(one, tmp_path, None)
    assert curves(folder) == expected(folder)
    assert [step for step, _ in curves(folder)["loss"]] == [1, 2, 3, 4]


def test_done_afresh_nothing_of_the_run_before_is_left(tmp_path):
    one = spec("log=tensorboard")
    folder = RunFolder(tmp_path, one.id)
    run(one, tmp_path, None)
    (before,) = files(folder)
    folder.enqueue(one.plain(), "fresh")
    folder.begin(one.config)
    assert files(folder) == []
    time.sleep(1)  # the name of an event file holds the second
    run(one, tmp_path, None)
    assert files(folder) != [before]


@pytest.mark.exhaustive
def test_it_goes_through_the_local_queue(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "methods=ce", *SHORT, "executor=local", "log=tensorboard"]) == 0
    (folder,) = [RunFolder(path.parent, path.name) for path in tmp_path.glob("runs/*")]
    assert curves(folder) == expected(folder)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("log=tensorbord", "unknown log 'tensorbord'; did you mean 'tensorboard'?"),
        ("log=tensorboard,csv", "unknown log 'csv'; valid: mlflow, tensorboard, wandb"),
        ("Machine.log=csv", "Machine.log takes names out of tensorboard, wandb, mlflow, not 'csv'"),
        ("lg=tensorboard", "unknown selection 'lg'; did you mean 'log'?"),
    ],
)
def test_another_word_is_refused(tmp_path, monkeypatch, capsys, word, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "methods=ce", *SHORT, word]) == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("in_its_place", [None, ModuleSpec("tensorboard", None)], ids=["nothing", "a folder"])
@pytest.mark.parametrize("word", ["log=tensorboard", "Machine.log=tensorboard"])
def test_without_the_package_it_is_said_before_anything_starts(tmp_path, monkeypatch, capsys, word, in_its_place):
    monkeypatch.chdir(tmp_path)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(request, "find_spec", lambda name: in_its_place if name == "tensorboard" else find_spec(name))
    assert main(["run", "methods=ce", *SHORT, word]) == 2
    assert "pip install 'kdbench[tensorboard]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_trial_takes_none(capsys):
    assert main(["tune", "kd", "trials=2", "dataset=digits", "log=tensorboard"]) == 2
    assert "kdbench tune does not support log=" in capsys.readouterr().err
