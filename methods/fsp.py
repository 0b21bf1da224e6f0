"""Flow of the solution procedure: the student first learns how the teacher's neighbouring maps relate, then the classes.

Yim, Joo, Bae and Kim, "A gift from knowledge distillation: fast optimization, network minimization and transfer learning",
CVPR 2017.

Family: feature
Loss: phase 1: Σ MSE(M_i, M_i^t) over neighbouring maps of (stem, 1, …, S), M_i = F_i F_{i+1}ᵀ / (H·W); phase 2: CE
Source: RepDistiller (distiller_zoo/FSP.py and train/train_student.py)
Choice: the larger map of two neighbours is averaged to the smaller, as RepDistiller and Knowledge-Distillation-Zoo do;
    FSP.pooling='maximum' takes the maximum, as KD_methods_with_TF and torchdistill do.
Choice: phase 1 is a share of the budget; FSP.on_top=True spends its images in addition, as RepDistiller does, and FSP.joint=True
    adds the term to the cross-entropy in one phase.
Choice: networks with unequal numbers of stages are paired from the deepest, with the stem as the map before the first stage.
Fault: RepDistiller keeps the products of all pairs of channels at every pixel, B·C_i·C_{i+1}·H·W numbers; a batched matrix product
    has the same value.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import (
    Backbone,
    Batch,
    Features,
    Method,
    Phase,
    RunError,
    at_least_float32,
    full_precision,
    kd_term,
)
from kdbench.method.connectors import paired

Pooling = Literal["average", "maximum"]


def fsp_matrix(first: Tensor, second: Tensor, pooling: Pooling = "average") -> Tensor:
    """Products of all channels of two maps, averaged over the pixels, (B, C_1, C_2); the larger map is pooled first.

    Args:
        first, second: (B, C, H, W).
    """
    height, width = (min(sides) for sides in zip(first.shape[2:], second.shape[2:], strict=True))
    pool = F.adaptive_avg_pool2d if pooling == "average" else F.adaptive_max_pool2d
    with full_precision(first.device):
        rows, columns = (pool(at_least_float32(x), (height, width)).flatten(2) for x in (first, second))
        return rows @ columns.transpose(1, 2) / (height * width)


def fsp_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], pooling: Pooling = "average") -> Tensor:
    """Mean squared difference of the matrices of neighbouring maps, summed over the neighbours.

    Args:
        maps, targets: of student and teacher, (B, C_i, H_i, W_i), shallowest first, with equal widths.
    """
    matrices = ([fsp_matrix(*two, pooling=pooling) for two in pairwise(each)] for each in (maps, targets))
    terms = [F.mse_loss(ours, theirs) for ours, theirs in zip(*matrices, strict=True)]
    return torch.stack(terms).sum()


@torch.no_grad()
def _map_widths(network: Backbone, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Channels of the stem map and of each stage map, found by passing zeros through."""
    was_training = network.training
    stem = network.eval().stem(torch.zeros(1, *image_shape, device=next(network.parameters()).device))
    network.train(was_training)
    return (stem.shape[1], *(channels for channels, _, _ in network.stage_shapes(image_shape)))


class FSP(Method):
    """Phase 1 trains the student without its classifier on `fsp_loss`, phase 2 all of it on cross-entropy.

    Args:
        weight: of `fsp_loss`.
        pooling: of the larger of two neighbouring maps.
        share: of the budget that phase 1 gets.
        on_top: give phase 1 its images in addition to the budget.
        joint: train on the sum of both in one phase; `share` and `on_top` then mean nothing.
        kd_weight, temperature: of distillation in phase 2.
    """

    needs_teacher = True

    weight: float
    pooling: Literal["average", "maximum"]
    share: float
    on_top: bool
    joint: bool
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        widths = [_map_widths(network, self.info.image_shape) for network in (self.student, self.teacher)]
        if any(ours != theirs for ours, theirs in paired(*widths)):
            ours, theirs = (", ".join(map(str, each)) for each in widths)
            raise RunError(
                f"fsp needs a teacher as wide as the student, map by map: the stem and stages of the student have {ours} "
                f"channels, those of the teacher {theirs}; a deeper network of the student's own family and width fits"
            )

    def phases(self) -> Sequence[Phase]:
        if self.joint:
            return (Phase(),)
        body = list(self.student.body().parameters())
        first = Phase("relations", self.share, self.relations, trains=body, rate="constant", on_top=self.on_top)
        return first, Phase("classes")

    def relations(self, batch: Batch) -> dict[str, Tensor]:
        return self._between(self.student(batch.images, features=("stem",)), self.teach(batch, "stem"))

    def _between(self, ours: Features, theirs: Features) -> dict[str, Tensor]:
        maps, targets = zip(*paired([ours.stem, *ours.stages], [theirs.stem, *theirs.stages]), strict=True)
        return {"fsp": self.weight * fsp_loss(maps, targets, self.pooling)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=("stem",))
        terms = {"ce": self.cross_entropy(out.logits, batch.labels)}
        if not self.joint and not self.kd_weight:
            return terms
        taught = self.teach(batch, "stem" if self.joint else "logits")
        if self.joint:
            terms |= self._between(out, taught)
        return terms | kd_term(out.logits, taught.logits, self.kd_weight, self.temperature)
