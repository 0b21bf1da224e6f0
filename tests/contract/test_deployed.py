"""A deployed network that is not the student, SimKD's, is what is measured, counted, kept and compared by epoch."""

import csv

import pytest
import torch

from kdbench.backbones import registry
from kdbench.measures import cost
from kdbench.run import checkpoint, evaluate
from kdbench.run.group import Group
from kdbench.run.loop.train import train
from kdbench.run.prepare import build, prepare
from kdbench.store.folder import CHECKPOINT, EPOCHS, RunFolder
from kdbench.streams import Streams

WORDS = ["methods=simkd", "Train.epochs=8", "SGD.lr=0.2"]
"""With a rate that is high enough for the best epoch not to be the last, with most seeds on every processor."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("simkd")


@pytest.fixture(scope="module")
def result(run_all, runs):
    """The run of the first seed whose best epoch is better than the last."""
    for seed in range(6):
        done = run_all(runs, *WORDS, f"seeds={seed}")[-1]
        assert done["status"] == "finished", done.get("error")
        if max(curve := validation_curve(runs, done)) > curve[-1]:
            break
    return done


def validation_curve(runs, result):
    with (RunFolder(runs, result["run"]) / EPOCHS).open() as file:
        return [float(line["accuracy.val"]) for line in csv.DictReader(file)]


@pytest.fixture(scope="module")
def parts():
    """Student, projector and teacher as their layers count: parameters."""
    student, teacher = (registry.build(name, 10, 1) for name in ("resnet8", "resnet14"))
    projector = 64 * 32 + 9 * 32 * 32 + 32 * 64 + 2 * (32 + 32 + 64)
    classifier = 64 * 10 + 10
    return student, teacher, projector, classifier


@pytest.fixture
def ready(plan, runs, result):
    """The settings, task and teacher of the run, and the method as it was before training."""
    spec = plan(*WORDS, f"seeds={result['seed']}")[-1]
    prepared = prepare(spec, runs, None, Group())
    return prepared, build(spec, prepared, Streams(spec.seed))


@pytest.fixture
def state(runs, result):
    return checkpoint.load(RunFolder(runs, result["run"]) / CHECKPOINT)["student"]


def test_parameters_are_those_of_the_deployed_network(result, parts):
    student, _, projector, classifier = parts
    body = cost.parameters(student) - cost.parameters(student.fc)
    assert result["cost.parameters"] == body + projector + classifier
    assert result["cost.parameters_training"] == body + projector, "neither classifier is trained"


def test_flops_are_those_of_the_deployed_network(result, parts, flops_of):
    student, teacher, _, _ = parts
    body = flops_of(student) - 2 * 64 * 10
    projector = 2 * 4 * (64 * 32 + 9 * 32 * 32 + 32 * 64)  # on 2 × 2 pixels
    assert result["cost.flops"] == body + projector + 2 * 64 * 10
    assert result["cost.flops_training"] == body + projector + flops_of(teacher)


def test_the_checkpoint_holds_the_deployed_network_and_its_accuracy_is_the_one_reported(result, ready, state):
    (prepared, method), deployed = ready, ready[1].deployed()
    deployed.load_state_dict(state)
    assert not any("fc." in name for name in state)
    assert checkpoint.weights_sha256(state) == result["weights.sha256"]
    prepared.task.test.training_is_over()
    test, dataset = prepared.task.test.read(), prepared.settings.dataset
    assert evaluate.accuracy(deployed, test, dataset) == result["accuracy.last"]
    assert evaluate.accuracy(deployed, prepared.task.validation, dataset) == result["accuracy.val"]
    assert evaluate.accuracy(method.student, test, dataset) != result["accuracy.last"], "its own classifier is random"


def test_the_kept_classifier_is_the_teachers(runs, result, state):
    teacher = checkpoint.load(RunFolder(runs, result["teacher.run"]) / CHECKPOINT)["student"]
    for name in ("weight", "bias"):
        assert torch.equal(state[f"classifier.{name}"], teacher[f"fc.{name}"])


def test_the_best_epoch_is_that_of_the_deployed_network(runs, result, ready, tmp_path):
    curve = validation_curve(runs, result)
    assert result["accuracy.val"] == curve[-1] < max(curve)
    assert curve.index(max(curve)) + 1 == result["best_epoch"]
    prepared, method = ready
    outcome = train(method, prepared.task, prepared.settings, Streams(result["seed"]), tmp_path / "epochs.csv")
    assert outcome.best.keys() == method.deployed().state_dict().keys()
    method.deployed().load_state_dict(outcome.best)
    assert evaluate.accuracy(method.deployed(), prepared.task.validation, prepared.settings.dataset) == max(curve)
    prepared.task.test.training_is_over()
    test = prepared.task.test.read()
    assert evaluate.accuracy(method.deployed(), test, prepared.settings.dataset) == result["accuracy.best_val"]


def test_neither_classifier_trains_or_decays_and_all_else_does(ready, tmp_path):
    prepared, method = ready
    before = {name: value.clone() for name, value in method.named_parameters()}
    train(method, prepared.task, prepared.settings, Streams(0), tmp_path / "epochs.csv")
    same = {name for name, value in method.named_parameters() if torch.equal(value, before[name])}
    assert same == {
        f"{module}.{part}" for module in ("student.fc", "network.classifier") for part in ("weight", "bias")
    }
    assert prepared.settings.optimiser.weight_decay > 0
