"""CIFAR-10-C and CIFAR-100-C: files of the published format, in small."""

import numpy as np
import pytest
import torch

from kdbench.config.settings import Dataset, Measures
from kdbench.data.images import Images
from kdbench.errors import RunError, UserError
from kdbench.measures import published_corruptions
from kdbench.measures.evaluation import OWN, Evaluation

CIFAR = Dataset("cifar10", (0.0,) * 3, (1.0,) * 3, True)


class Brightest(torch.nn.Module):
    """Predicts the class that the red of the first pixel names."""

    def forward(self, images):
        return torch.nn.functional.one_hot((images[:, 0, 0, 0] * 255).round().long(), 256).float()


@pytest.fixture
def folder(tmp_path):
    """Ten images in five severities; a third of those with fog show another class."""
    place = tmp_path / "CIFAR-10-C"
    place.mkdir()
    labels = np.tile(np.arange(10), 5).astype(np.uint8)
    np.save(place / "labels.npy", labels)
    for name in published_corruptions.NAMES:
        images = np.zeros((50, 32, 32, 3), dtype=np.uint8)
        images[..., 0] = labels[:, None, None]
        if name == "fog":
            images[:20, ..., 0] = 99
        np.save(place / f"{name}.npy", images)
    return tmp_path


def evaluation(folder, asked=True):
    images = Images(torch.zeros(5, 32, 32, 3, dtype=torch.uint8), torch.arange(5))
    measures = Measures((), False, 0, (), asked)
    return Evaluation(Brightest(), {OWN: torch.eye(5)}, None, images, [], 10, CIFAR, measures, folder=folder)


def test_the_mean_is_over_the_corruptions(folder):
    values = published_corruptions.of_evaluation(evaluation(folder))
    assert values["robustness.published.fog"] == 60.0
    assert values["robustness.published.snow"] == 100.0
    assert values["robustness.published"] == pytest.approx((14 * 100 + 60) / 15)
    assert published_corruptions.of_evaluation(evaluation(folder, asked=False)) == {}


def test_what_is_missing_or_damaged_is_named(folder):
    with pytest.raises(UserError, match="is for cifar10 and cifar100, not for 'digits'"):
        published_corruptions.check("digits", folder)
    path = folder / "CIFAR-10-C" / "fog.npy"
    np.save(path, np.zeros((3, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(RunError, match=r"fog.npy must hold 50 images of 32x32, not \(3, 32, 32, 3\)"):
        published_corruptions.of_evaluation(evaluation(folder))
    path.write_bytes(b"no")
    with pytest.raises(RunError, match=r"fog\.npy cannot be read"):
        published_corruptions.of_evaluation(evaluation(folder))
    path.unlink()
    with pytest.raises(UserError, match=r"needs .*fog\.npy"):
        published_corruptions.check("cifar10", folder)
