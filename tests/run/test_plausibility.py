"""Teachers that guess, or whose classes are in another order, by networks that look the answer up."""

import pytest
import torch
from torch import nn

from kdbench.config.settings import Dataset
from kdbench.data.images import Images
from kdbench.run import plausibility

CLASSES = 100
DATASET = Dataset(source="numbers", mean=(0.0,), std=(1 / 255,), mirrored=False)
LABELS = torch.arange(CLASSES).repeat_interleave(10)
IMAGES = Images(LABELS.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 4, 4, 1), LABELS)


class LookUp(nn.Module):
    """Reads the class of an image from its pixels, and names it as it was taught."""

    def __init__(self, names):
        super().__init__()
        self.register_buffer("names", torch.as_tensor(names))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images):
        self.norm(images)
        return nn.functional.one_hot(self.names[images[:, 0, 0, 0].round().long()], CLASSES).float()


def doubt(names):
    return plausibility.doubt(LookUp(names), IMAGES, DATASET, "w.pt")


def test_a_teacher_that_is_right_is_not_doubted():
    assert doubt(range(CLASSES)) is None
    half = [label if label % 2 else 0 for label in range(CLASSES)]
    assert doubt(half) is None


def test_labels_in_the_order_of_their_names_as_text_are_told():
    by_text = sorted(range(CLASSES), key=str)
    sentence = doubt([by_text.index(label) for label in range(CLASSES)])
    assert sentence.startswith("the teacher w.pt is right on ")
    assert "but would be on 100 % if the classes were in another order" in sentence


def test_a_few_classes_in_another_order_are_told():
    exchanged = list(range(CLASSES))
    exchanged[10:30] = exchanged[20:30] + exchanged[10:20]
    assert doubt(exchanged).startswith(
        "the teacher w.pt is right on 80.0 % of 500 training images, but would be on 100 %"
    )


@pytest.mark.parametrize(
    "names", [[0] * CLASSES, torch.randint(3, (CLASSES,), generator=torch.Generator().manual_seed(0))]
)
def test_a_teacher_that_guesses_is_told(names):
    assert "% of 500 training images, near chance (1.0 %)" in doubt(names)


def test_the_teacher_is_left_as_it_was():
    network = LookUp(range(CLASSES)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plausibility.doubt(network, IMAGES, DATASET, "w.pt")
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
