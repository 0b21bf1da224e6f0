"""ReviewKD: every map of the teacher is imitated by the student's map of its stage together with all deeper ones.

Chen, Liu, Zhao and Jia, "Distilling knowledge via knowledge review", CVPR 2021.

Family: feature
Loss: CE + w · min(1, progress / ramp) · Σ_i HCL(out_i, P_i^t), out_i fused from the levels i and above, the top one g against g^t
Source: the authors' code for CIFAR-100 (ReviewKD), and mdistiller's for the weight
Choice: `weight` is 5 for all pairs, as in mdistiller; the authors set 0.6 to 8 for each pair
Choice: the weight grows by step over the first twelfth of the training, as long as the authors' 20 of 240 epochs; there it grows by
    epoch, and `ramp` 0 is none
Choice: `student_maps` is "active" as in the code for CIFAR-100, where the teacher's maps before the ReLU meet the student's after
    it; "preactivation" takes both before it, as mdistiller does for ImageNet
Choice: networks with unequal numbers of stages are paired from the deepest, and shallow stages without a partner are left out
Fault: the authors' CIFAR code never puts the teacher into evaluation mode; here it always is
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import ConvBN, check_preactivations, paired, pooled

WIDEST = 512
"""Channels of the fused maps at most."""


def hcl(x: Tensor, target: Tensor) -> Tensor:
    """Hierarchical context loss of two maps (B, C, H, W): mean squares of their difference at 4, 2 and 1 pixels a side too.

    A resolution counts only if it is below the map's. Each counts half as much as the one before it, and the sum is divided
    by that of the weights.
    """
    difference = at_least_float32(x) - at_least_float32(target)
    terms = [difference, *(pooled(difference, (side, side)) for side in (4, 2, 1) if side < x.shape[2])]
    weights = [0.5**level for level in range(len(terms))]
    total = torch.stack([w * term.square().mean() for w, term in zip(weights, terms, strict=True)]).sum()
    return total / sum(weights)


class Fusion(nn.Module):
    """Attention-based fusion of a level's map with what the levels above have handed down.

    Args:
        width, target: channels of the student's map and of the teacher's.
        middle: channels of what is handed down.
        top: the highest level, which has nothing above it.
    """

    def __init__(self, width: int, target: int, middle: int, *, top: bool):
        super().__init__()
        self.conv1 = ConvBN(width, middle)
        self.conv2 = ConvBN(middle, target, 3)
        self.attention = None if top else nn.Conv2d(2 * middle, 2, 1)
        for adapter in (self.conv1, self.conv2):
            nn.init.kaiming_uniform_(adapter.conv.weight, a=1)

    def forward(self, x: Tensor, above: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Output (B, C^t, …) and what is handed down (B, M, …), both of `size` (height, width).

        Args:
            x: the student's map (B, C, H, W).
            above: what the level above has handed down; None at the top.
        """
        x = self.conv1(x)
        if self.attention is not None and above is not None:
            above = resized(above, x.shape[2:])
            with full_precision(x.device):
                shares = self.attention(torch.cat([x, above], dim=1)).sigmoid()
            x = shares[:, :1] * x + shares[:, 1:] * above
        x = resized(x, size)
        return self.conv2(x), x


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map (B, C, H, W) at `size` (height, width), by the nearest pixel."""
    return x if list(x.shape[2:]) == list(size) else F.interpolate(x, size=tuple(size), mode="nearest")


class Review(nn.ModuleList):
    """Fusions of all levels, lowest first.

    Args:
        widths, targets: channels of the student's and the teacher's maps, lowest level first, the pooled features last.
    """

    def __init__(self, widths: Sequence[int], targets: Sequence[int]):
        middle, top = min(WIDEST, widths[-1]), len(widths) - 1
        super().__init__(
            Fusion(width, target, middle, top=level == top)
            for level, (width, target) in enumerate(zip(widths, targets, strict=True))
        )

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Outputs (B, C_i^t, …) in `sizes` (height, width), the teacher's, from the student's maps; lowest level first."""
        outputs: list[Tensor] = []
        above = None
        for fusion, x, size in zip(reversed(self), reversed(maps), reversed(sizes), strict=True):
            output, above = fusion(x, above, size)
            outputs.insert(0, output)
        return outputs


class ReviewKD(Method):
    """Cross-entropy, and `hcl` between what `Review` makes of the student's maps and the teacher's pre-activations.

    Args:
        weight: of the sum over the levels, once it has grown.
        ramp: share of the training in which the weight grows from 0.
        student_maps: after the last ReLU of a stage ("active") or before it.
        kd_weight, temperature: of the KD term that comes in addition; none at weight 0.
    """

    needs_teacher = True

    weight: float
    ramp: float
    student_maps: Literal["active", "preactivation"]
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        check_preactivations("reviewkd", self.teacher)
        if self.student_maps == "preactivation":
            check_preactivations("ReviewKD.student_maps='preactivation'", self.student, remedy="use 'active'")
        pairs = paired(self.stage_shapes(), self.stage_shapes(self.teacher))
        self.review = Review(
            [*(ours[0] for ours, _ in pairs), self.student.fc.in_features],
            [*(theirs[0] for _, theirs in pairs), self.teacher.fc.in_features],
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        before_relu = self.student_maps == "preactivation"
        out = self.student(batch.images, features=("preactivations",) if before_relu else True)
        taught = self.teach(batch, "preactivations")
        pairs = [
            *paired(out.preactivations if before_relu else out.stages, taught.preactivations),
            (out.pooled[:, :, None, None], taught.pooled[:, :, None, None]),
        ]
        targets = [target for _, target in pairs]
        outputs = self.review([x for x, _ in pairs], [target.shape[2:] for target in targets])
        review = torch.stack([hcl(x, target) for x, target in zip(outputs, targets, strict=True)]).sum()
        grown = min(1.0, batch.progress / self.ramp) if self.ramp else 1.0
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "reviewkd": self.weight * grown * review,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
