"""CAT-KD: the student attends to the same pixels for each class as the teacher, by their class activation maps.

Guo, Yan, Li and Lin, "Class attention transfer based knowledge distillation", CVPR 2023.

Family: feature
Loss: CE + w · MSE(n(pool(A → r)), n(pool(A^t → r))), A = F_S through the classifier's weight, pixel by pixel
Source: the authors' code (CAT-KD, on mdistiller)
Choice: one setting for all pairs, the default of the authors' code (weight 400, r = 2, normalised); their files set all three
    for each pair, from 0.7 without `normalise` to 600 with r = 4
Choice: the authors' student has no bias in its classifier; here it keeps it in the logits, and class maps leave it out
Choice: `binarise` is the authors' ablation: a teacher's map is 1 where it exceeds its mean absolute value, else 0
Fault: the gradient of a normalised map of zeros is of the order of 1e12 in the original; here such a map has none
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import normalised, pooled


def class_maps(x: Tensor, weight: Tensor) -> Tensor:
    """Class activation maps (B, K, H, W) of a map (B, C, H, W) whose average a classifier with `weight` (K, C) reads."""
    with full_precision(x.device):
        return F.conv2d(at_least_float32(x), weight[:, :, None, None])


def binarised(maps: Tensor) -> Tensor:
    """1 where a class map (B, K, H, W) is above its mean absolute value, else 0."""
    return (maps > maps.abs().mean(dim=(2, 3), keepdim=True)).to(maps.dtype)


def catkd_loss(maps: Tensor, target: Tensor, resolution: int, normalise: bool) -> Tensor:
    """Mean squared difference of class maps (B, K, H, W) and (B, K, H', W'), averaged to `resolution` pixels a side.

    Args:
        normalise: give each class map of each image L2 norm 1 first; a map of zeros stays 0.
    """
    maps, target = (pooled(x, (resolution, resolution)) for x in (maps, target))
    if normalise:
        maps, target = (normalised(x, dim=(2, 3)) for x in (maps, target))
    return F.mse_loss(maps, target)


class CATKD(Method):
    """Cross-entropy and `catkd_loss` of the class activation maps of student and teacher.

    Args:
        weight: of the loss.
        resolution: pixels a side to which class maps are averaged.
        normalise: give each class map L2 norm 1.
        binarise: make the teacher's class maps 0 and 1.
        kd_weight, temperature: of the KD term that comes in addition; none at weight 0.
    """

    needs_teacher = True

    weight: float
    resolution: int
    normalise: bool
    binarise: bool
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        for whose, network in (("student", self.student), ("teacher", self.teacher)):
            width, reads = self.stage_shapes(network)[-1][0], network.fc.in_features
            if width != reads and not network.neck_modules():
                raise RunError(
                    f"catkd needs a {whose} whose classifier reads the average of its deepest map: the map has {width} "
                    f"channels, and the classifier reads {reads} numbers"
                )
        if self.resolution < 1:
            raise RunError(f"CATKD.resolution={self.resolution} must be at least 1 pixel")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=("unpooled",)), self.teach(batch, "unpooled")
        theirs = cast(Tensor, taught.unpooled)
        maps = class_maps(self._small(out.unpooled), self.student.fc.weight)
        target = class_maps(theirs if self.binarise else self._small(theirs), self.teacher.fc.weight)
        loss = catkd_loss(maps, binarised(target) if self.binarise else target, self.resolution, self.normalise)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "catkd": self.weight * loss,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }

    def _small(self, x: Tensor) -> Tensor:
        # Averaging and the classifier are linear: in this order there are fewer pixels to classify.
        return pooled(x, (self.resolution, self.resolution))
