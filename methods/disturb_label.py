"""DisturbLabel: a share of the labels is drawn at random, again at each step.

Xie, Wang, Wei, Wang and Tian, "DisturbLabel: Regularizing CNN on the loss layer", CVPR 2016.

Family: regulariser
Loss: CE(z, ỹ), ỹ = y with probability 1 − α, otherwise uniform over all K classes
Source: OnlineLabelSmoothing (cifar/scripts/loss_all_methods.py)
Choice: `rate` is a share, 0.1 as in that code. Other code takes percent, 20 by default, which is 0.2.
Choice: the label itself can be drawn, as in the paper, so that it is kept with probability 1 − α · (K − 1) / K
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.method import Batch, Method, RunError


def disturbed(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Labels (B,), of which a share of about `rate` is redrawn uniformly over all classes, on the generator's device."""
    chance = torch.rand(len(labels), generator=generator, device=labels.device)
    other = torch.randint(classes, (len(labels),), generator=generator, device=labels.device)
    return torch.where(chance < rate, other, labels)


class DisturbLabel(Method):
    """Cross-entropy with labels that are disturbed at each step.

    Args:
        rate: α, the chance that a label is redrawn.
    """

    rate: float

    def setup(self) -> None:
        if not 0 <= self.rate <= 1:
            raise RunError(f"DisturbLabel.rate={self.rate:g} must be between 0 and 1 (a share of the labels)")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        whole, streams = batch.share.gather(batch.labels), batch.streams
        labels = disturbed(whole, self.rate, self.info.classes, streams("labels", device=whole.device))
        return {"ce": self.cross_entropy(self.student(batch.images), batch.share.own(labels))}
