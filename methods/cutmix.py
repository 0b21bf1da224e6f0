"""CutMix: a part of each image is replaced by that of another one, and the classes are mixed by area.

Yun, Han, Oh, Chun, Choe and Yoo, "CutMix: Regularization strategy to train strong classifiers with localizable features", ICCV
2019.

Family: regulariser
Loss: λ · CE(z(x̃), y) + (1 − λ) · CE(z(x̃), y_π), λ the share of the area that is left of x; λ, π and the box are one for a batch
Source: the authors' code (CutMix-PyTorch, train.py)
Choice: an odd side of the box is a pixel shorter, as in the authors' code, and λ is that of the box
Choice: partners are those of the whole batch on any number of GPUs, as in the authors' code, which splits the batch afterwards
Choice: this row alone sees mixed images, so it is marked as a control's; `Mix.cutmix` mixes them for all methods of a table
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.method import Batch, Method, RunError
from kdbench.method.mixing import box, check_alpha, drawn_share, left_over, partners_of
from kdbench.methods.mixup import mixed_cross_entropy


def pasted(own: Tensor, partners: Tensor, part: tuple[int, int, int, int]) -> Tensor:
    """Images (B, C, H, W) whose part (top, bottom, left, right) is that of their partners."""
    top, bottom, left, right = part
    images = own.clone()
    images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return images


class CutMix(Method):
    """Cross-entropy on images that are made of two, with both classes in the shares of their areas.

    Args:
        alpha: α of Beta(α, α), from which the share of an image is drawn.
        probability: chance that a batch is mixed.
    """

    alpha: float
    probability: float

    def setup(self) -> None:
        check_alpha("CutMix", self.alpha)
        if not 0 <= self.probability <= 1:
            raise RunError(f"CutMix.probability={self.probability:g} must be between 0 and 1")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        chance, y, x = torch.rand(3, generator=batch.streams("box"), dtype=torch.float64).tolist()
        if chance >= self.probability:
            return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}
        images, labels = partners_of(batch, batch.images, batch.labels)
        height, width = batch.images.shape[2:]
        part = box((height, width), drawn_share(batch, self.alpha), (y, x))
        logits, share = self.student(pasted(batch.images, images, part)), left_over((height, width), part)
        return {"ce": mixed_cross_entropy(logits, batch.labels, labels, share, self.info.label_smoothing)}
