import pytest
import torch
from torch import nn

from kdbench.config.settings import Dataset
from kdbench.data.images import Images
from kdbench.run import evaluate
from kdbench.run.evaluate import accuracies, accuracy

DATASET = Dataset(source="x", mean=(0.0,), std=(1.0,), mirrored=False)
# Each image is one pixel whose value is 51 times its class.
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
IMAGES = Images((LABELS * 51).to(torch.uint8).reshape(-1, 1, 1, 1), LABELS)


def says(x, wrong):
    """Logits that are right but for the classes in `wrong`."""
    classes = (x[:, 0, 0, 0] * 5).round().long()
    return (
        torch.nn.functional.one_hot(
            torch.where(torch.isin(classes, torch.tensor(wrong)), (classes + 1) % 5, classes), 5
        )
        * 9.0
    )


def test_accuracy_counts_by_hand(monkeypatch):
    monkeypatch.setattr(evaluate, "BATCH", 3)
    found = accuracies(lambda x: {"own": says(x, [0]), "exit1": says(x, [3, 4])}, IMAGES, DATASET)
    assert found["own"] == pytest.approx(100 * 6 / 8)
    assert found["exit1"] == pytest.approx(100 * 6 / 8)


def test_the_ensemble_is_the_argmax_of_the_averaged_softmax():
    sure = lambda x: says(x, [])  # noqa: E731
    unsure = lambda x: says(x, [0, 1, 2, 3, 4]) / 9  # noqa: E731
    found = accuracies(lambda x: {"a": sure(x), "b": unsure(x), "c": unsure(x)}, IMAGES, DATASET)
    assert found == {"a": 100.0, "b": 0.0, "c": 0.0, "ensemble": 100.0}


def test_one_classifier_has_no_ensemble():
    assert set(accuracies(lambda x: {"own": says(x, [])}, IMAGES, DATASET)) == {"own"}


def test_measuring_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 5), nn.BatchNorm1d(5))
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    accuracy(network, IMAGES, DATASET)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
