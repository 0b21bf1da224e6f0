"""Mixup: the student learns mixtures of two images, and that their classes are mixed alike.

Zhang, Cissé, Dauphin and Lopez-Paz, "mixup: Beyond empirical risk minimization", ICLR 2018.

Family: regulariser
Loss: λ · CE(z(x̃), y) + (1 − λ) · CE(z(x̃), y_π), x̃ = λ · x + (1 − λ) · x_π, λ ~ Beta(α, α), λ and the permutation π one for a batch
Source: the authors' code (mixup-cifar10, train.py)
Choice: partners are those of the whole batch on any number of GPUs, as in the authors' code, which splits the batch afterwards
Choice: this row alone sees mixed images, so it is marked as a control's; `Mix.mixup` mixes them for all methods of a table
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32
from kdbench.method.mixing import check_alpha, drawn_share, partners_of


def mixed(own: Tensor, partners: Tensor, share: float) -> Tensor:
    """Images or maps (B, …) with the given share, and their partners with the rest."""
    return share * own + (1 - share) * partners


def mixed_cross_entropy(
    logits: Tensor, labels: Tensor, partners: Tensor, share: float, label_smoothing: float = 0.0
) -> Tensor:
    """λ · CE(z, y) + (1 − λ) · CE(z, y_π), averaged over the batch.

    Args:
        logits: (B, K) of the mixed images.
        labels, partners: (B,) classes of the images and of their partners.
        share: λ.
    """
    logits = at_least_float32(logits)
    own, other = (F.cross_entropy(logits, y, label_smoothing=label_smoothing) for y in (labels, partners))
    return share * own + (1 - share) * other


class Mixup(Method):
    """Cross-entropy on mixed images, with both classes in their shares.

    Args:
        alpha: α of Beta(α, α), from which the share of an image is drawn.
    """

    alpha: float

    def setup(self) -> None:
        check_alpha("Mixup", self.alpha)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        share = drawn_share(batch, self.alpha)
        images, labels = partners_of(batch, batch.images, batch.labels)
        logits = self.student(mixed(batch.images, images, share))
        return {"ce": mixed_cross_entropy(logits, batch.labels, labels, share, self.info.label_smoothing)}
