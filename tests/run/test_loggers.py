"""`log=wandb` and `log=mlflow`: what they have is what epochs.csv has, a resumed run continues its own, and none can end a run."""

import csv
import json
import random
import struct

import pytest
import torch

from kdbench.config import loggers as loggers_
from kdbench.plan import expand, request
from kdbench.run import loggers
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.resume import Stopped
from kdbench.store.folder import EPOCHS, LOG, LOGGED, RunFolder

SHORT = [
    "dataset=digits", "student=resnet8", "Train.epochs=3", "Train.warmup=0", "Train.batch_size=45",
    "Split.validation=0.2", "Machine.threads=1", "Measures.corruptions=False", "Measures.noise=()",
]  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """W&B writes files only, and neither it nor MLflow goes by the user's own variables."""
    for name in ("WANDB_PROJECT", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")


def spec(*words):
    (found,) = expand.plan(request.parse(["methods=ce", *SHORT, *words]))
    return found


def expected(folder, separator="."):
    """By metric, its values by step, from epochs.csv."""
    found = {}
    for line in csv.DictReader((folder / EPOCHS).open()):
        for name, value in loggers.metrics(line, separator).items():
            found.setdefault(name, {})[int(line["epoch"])] = value
    return found


def in_mlflow(runs):
    """The runs of the experiment, and by metric the values by step of the only one."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(runs / ".mlflow").as_uri())
    (one,) = client.search_runs([client.get_experiment_by_name("kdbench").experiment_id])
    history = {name: client.get_metric_history(one.info.run_id, name) for name in one.data.metrics}
    for name, points in history.items():
        assert len({point.step for point in points}) == len(points), name
    return one, {name: {point.step: point.value for point in points} for name, points in history.items()}


def records_of(content):
    """The records in a transaction log of W&B: a log of LevelDB in blocks of 32 KiB, after a header of seven bytes."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a record on its own, or the last part of one
            yield whole
            whole = b""


def in_wandb(runs):
    """By metric, its values by step, from the only transaction log."""
    from wandb.proto import wandb_internal_pb2

    (file,) = (runs / ".wandb").rglob("*.wandb")
    values = {}
    for content in records_of(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") != "history":
            continue
        items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for name, value in items.items():
            if not name.startswith("_"):
                values.setdefault(name, {})[record.history.step.num] = value
    return values


def stopped_after_every_step(one, tmp_path):
    while True:
        try:
            return run(one, tmp_path, None, Caller(stop=lambda: True))
        except Stopped:
            pass


def test_mlflow_has_what_epochs_csv_has_and_a_stopped_run_stays_one(tmp_path):
    pytest.importorskip("mlflow")
    one = spec("log=mlflow", "Machine.checkpoint_every=0")
    result = stopped_after_every_step(one, tmp_path)
    assert result["provenance.sessions"] > 3
    found, curves = in_mlflow(tmp_path)
    assert curves == expected(RunFolder(tmp_path, one.id))
    assert (found.info.run_name, found.info.status) == (one.id, "FINISHED")
    assert found.data.params["Train.batch_size"] == "45"


def test_wandb_has_what_epochs_csv_has_and_a_stopped_run_stays_one(tmp_path):
    pytest.importorskip("wandb")
    one = spec("log=wandb", "Machine.checkpoint_every=1000")
    folder = RunFolder(tmp_path, one.id)
    asked = iter(range(2))
    with pytest.raises(Stopped):
        run(one, tmp_path, None, Caller(stop=lambda: next(asked, None) is None))
    assert run(one, tmp_path, None)["status"] == "finished"
    assert in_wandb(tmp_path) == expected(folder, "/")


def test_a_run_done_afresh_is_a_new_one(tmp_path):
    folder = RunFolder(tmp_path, "ce-digits")
    folder.path.mkdir()
    first, is_new = loggers.logged_id(folder, "wandb")
    assert is_new
    assert loggers.logged_id(folder, "wandb") == (first, False)
    folder.forget()
    second, is_new = loggers.logged_id(folder, "wandb")
    assert is_new
    assert second != first


@pytest.mark.parametrize("id_", ["*", "../../x", "a/b", 3, None])
def test_an_id_that_names_other_files_is_not_used(tmp_path, id_):
    folder = RunFolder(tmp_path, "ce-digits")
    folder.path.mkdir()
    (folder / LOGGED).write_text(json.dumps({"wandb": id_}))
    found, is_new = loggers.logged_id(folder, "wandb")
    assert is_new
    assert found.startswith("ce-digits-")


class Broken:
    """A logger that draws random numbers, and fails at its second line."""

    def __init__(self, folder, lines):
        self.lines = 0
        random.random()
        torch.rand(())

    def add(self, line):
        random.random()
        torch.rand(())
        self.lines += 1
        if self.lines == 2:
            raise OSError("no space left")

    def close(self):
        raise AssertionError("a logger that failed is not asked again")


def test_a_logger_that_fails_leaves_the_run_as_it_is_with_one_warning(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from kdbench.run.loggers import mlflow

    without = run(spec(), tmp_path / "without", None)
    monkeypatch.setattr(mlflow, "Log", Broken)
    one = spec("log=mlflow")
    with pytest.warns(
        UserWarning, match="log=mlflow is left out of the rest of this run: OSError: no space left"
    ) as caught:
        result = run(one, tmp_path, None)
    assert len([each for each in caught if "left out" in str(each.message)]) == 1
    assert result["status"] == "finished"
    assert result["weights.sha256"] == without["weights.sha256"]
    assert (RunFolder(tmp_path, one.id) / LOG).read_text().count("left out") == 1


def test_the_global_generators_stay(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from kdbench.run.loggers import mlflow

    monkeypatch.setattr(mlflow, "Log", Broken)
    before = random.getstate(), torch.get_rng_state().tolist()
    logs = loggers.Loggers(["mlflow"], RunFolder(tmp_path, "x"), [])
    logs.add({"epoch": 1})
    assert (random.getstate(), torch.get_rng_state().tolist()) == before


def test_without_an_account_wandb_does_not_wait_for_an_answer(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    folder = RunFolder(tmp_path, "x")
    folder.path.mkdir()
    with pytest.warns(UserWarning, match="wandb login, or set WANDB_MODE=offline"):
        loggers.Loggers(["wandb"], folder, [])


def test_several_are_a_list(monkeypatch):
    monkeypatch.setattr(request, "find_spec", lambda name: importlib_spec)
    (one,) = expand.plan(request.parse(["methods=ce", *SHORT, "log=wandb,tensorboard"]))
    assert "Machine.log = 'wandb,tensorboard'" in one.config
    assert one.id == spec().id
    assert loggers_.named("wandb, tensorboard,") == ["wandb", "tensorboard"]


class importlib_spec:
    origin = "somewhere"
