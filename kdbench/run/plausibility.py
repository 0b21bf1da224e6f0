"""A teacher from outside, tried on some training images: near chance, or right on classes that are in another order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdbench.config.settings import Dataset
from kdbench.data.images import Images
from kdbench.data.readers.arrays import Arrays
from kdbench.data.readers.listing import Listing
from kdbench.measures.evaluation import OWN
from kdbench.run import evaluate

IMAGES = 500
"""Training images that a teacher is tried on, of all classes alike: enough to tell 2.5 % from the 1 % of 100 classes."""

DEVIATIONS = 3.0
"""Standard deviations above the accuracy of guessing up to which an accuracy counts as near chance."""

REORDERED, GAIN = 0.5, 0.15
"""Share of images that a teacher gets right in another order of the classes, and its distance from the share in this one, from
which on that order is taken for its own: two of ten classes exchanged are a distance of 0.2."""


def some(content: Arrays | Listing) -> Images:
    """The training images that `doubt` looks at; of a listing, no others are decoded."""
    labels = content.train_labels
    places = _places(len(labels))
    if isinstance(content, Listing):
        pixels = content.pixels(content.train, places.tolist())
    else:
        pixels = content.train_images[places.numpy()]
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels[places.numpy()]))


def _places(count: int) -> Tensor:
    return torch.linspace(0, count - 1, min(IMAGES, count)).long()


@torch.no_grad()
def doubt(
    network: nn.Module, images: Images, dataset: Dataset, name: str, logits_of: Callable[[Tensor], Tensor] | None = None
) -> str | None:
    """A sentence about a teacher that is hardly better than guessing on training images; None for any other.

    Args:
        images: training images, in the order of their labels.
        name: name of the teacher for the sentence.
        logits_of: normalised images (B, C, H, W) to logits (B, K), if not `network` itself.
    """
    places = _places(len(images)).to(images.labels.device)
    some = Images(images.take(places), images.labels[places])
    was_training = network.training
    network.eval()  # in training mode its batch normalisation would change
    logits = evaluate.all_logits(lambda x: {OWN: (logits_of or network)(x)}, some, dataset)[OWN]
    network.train(was_training)
    classes, predicted = logits.shape[1], logits.argmax(dim=1)
    accuracy = (predicted == some.labels).float().mean().item()
    chance = 1 / classes
    seen = f"the teacher {name} is right on {100 * accuracy:.1f} % of {len(some)} training images"
    in_own_order = _accuracy_in_own_order(predicted, some.labels, classes)
    if in_own_order >= max(REORDERED, accuracy + GAIN):
        return (
            f"{seen}, but would be on {100 * in_own_order:.0f} % if the classes were in another order: "
            "check the names of the class folders"
        )
    if accuracy <= chance + DEVIATIONS * (chance * (1 - chance) / len(some)) ** 0.5:
        return f"{seen}, near chance ({100 * chance:.1f} %): check its classes, and how its images were normalised"
    return None


def _accuracy_in_own_order(predicted: Tensor, labels: Tensor, classes: int) -> float:
    """The accuracy (0 to 1) after each class is given the label that the teacher predicts most often for it.

    These labels are taken from every second image, and the accuracy from the others. 0 where they are not nearly as many as
    the classes: a network that predicts one label for all images has no order.
    """
    first, second = slice(0, None, 2), slice(1, None, 2)
    votes = torch.zeros(classes, classes, device=labels.device)
    votes.index_put_(
        (labels[first], predicted[first]), torch.ones_like(labels[first], dtype=votes.dtype), accumulate=True
    )
    own = votes.argmax(dim=1)
    present = votes.sum(dim=1) > 0
    if not len(labels[second]) or len(own[present].unique()) <= 0.7 * present.sum():
        return 0.0
    return (own[labels[second]] == predicted[second]).float().mean().item()
