"""Finished runs are loaded without images: methods with what they trained, and what they deploy."""

import shutil

import pytest
import torch

from kdbench import methods
from kdbench.errors import RunError
from kdbench.launch import local
from kdbench.run import checkpoint, load
from kdbench.store.folder import CHECKPOINT


def accuracy(logits, labels):
    return 100 * (logits.argmax(dim=1) == labels).float().mean().item()


@pytest.mark.parametrize("method", ["kd", "byot", "crd", "corsd"])
def test_a_method_is_loaded_with_its_exits(taught, test_set, method):
    result = taught.do(f"methods={method}")[-1]
    loaded = load.method(taught.runs / result["run"])
    assert not loaded.training
    images, labels = test_set(taught.runs / result["run"])
    with torch.no_grad():
        classifiers = {"accuracy.last": loaded.deployed()(images)}
        classifiers |= {f"exits.{name}": logits for name, logits in loaded.exits(images).items()}
    assert {name for name in result if name.startswith("exits.")} == {*classifiers, "exits.ensemble"} - {
        "accuracy.last", *(["exits.ensemble"] if len(classifiers) == 1 else [])
    }  # fmt: skip
    for name, logits in classifiers.items():
        assert accuracy(logits, labels) == pytest.approx(result[name], abs=0.5)


@pytest.mark.parametrize("method", ["byot", "crd", "corsd"])
def test_what_a_method_keeps_of_each_image_is_not_in_the_checkpoint(taught, method):
    result = taught.do(f"methods={method}")[-1]
    described = checkpoint.load(taught.runs / result["run"] / CHECKPOINT)["method"]
    images = len(described["train_labels"])
    assert images == 72
    assert described["state"]
    assert not [name for name, value in described["state"].items() if value.dim() and len(value) == images]
    assert not [name for name in described["state"] if name.startswith("student.")], "it is there once"


def test_what_is_deployed_may_differ_from_the_student(taught, test_set):
    result = taught.do("methods=reuse")[-1]
    folder = taught.runs / result["run"]
    network, method = load.deployed(folder), load.method(folder)
    for each in (network, method.deployed()):
        assert checkpoint.weights_sha256(each.state_dict()) == result["weights.sha256"]
    assert network.fc.in_features == 64
    assert result["cost.parameters"] == sum(p.numel() for p in network.parameters())
    assert result["cost.parameters"] > sum(p.numel() for p in method.student.parameters())
    images, labels = test_set(folder)
    assert accuracy(network(images), labels) == pytest.approx(result["accuracy.last"], abs=0.5)


def test_a_deployed_network_that_is_not_a_backbone_teaches_by_its_logits_alone(taught):
    run = taught.do("methods=reuse")[-1]
    (taught_by_it,) = taught.do("methods=kd", f"teacher={run['run']}")
    assert taught_by_it["teacher.accuracy"] == pytest.approx(run["accuracy.last"], abs=0.5)
    assert "has logits alone" in taught.failure("methods=rkd", f"teacher={run['run']}")
    loaded = load.method(taught.runs / taught_by_it["run"])
    assert isinstance(loaded.teacher, load.LogitsOnly)


def test_weights_of_another_version_of_the_methods_file_are_refused(taught, monkeypatch):
    result = taught.do("methods=byot")[-1]
    monkeypatch.setattr(methods.class_of("byot"), "setup", lambda self: None)
    with pytest.raises(RunError, match=r"do not fit methods/byot.py, which has changed since"):
        load.method(taught.runs / result["run"])


def test_checkpoints_of_an_earlier_kdbench_are_read(taught, tmp_path):
    run = taught.do("methods=byot")[-1]
    folder = tmp_path / run["run"]
    shutil.copytree(taught.runs / run["run"], folder)
    saved = checkpoint.load(folder / CHECKPOINT)
    torch.save({"format": 1, **{key: saved[key] for key in ("backbone", "student", "facts")}}, folder / CHECKPOINT)
    assert checkpoint.weights_sha256(load.deployed(folder).state_dict()) == run["weights.sha256"]
    with pytest.raises(RunError, match="holds the network alone; an earlier kdbench wrote it"):
        load.method(folder)
    (result,) = local.inline(taught.specs("methods=kd", f"teacher={run['run']}", runs=tmp_path), tmp_path, None)
    assert result["status"] == "finished"
