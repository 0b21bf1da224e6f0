"""Activation boundaries: before it learns the classes, the student learns which of the teacher's neurons are active.

Heo, Lee, Yun and Choi, "Knowledge transfer via distillation of activation boundaries formed by hidden neurons", AAAI 2019;
scale and stage weights are RepDistiller's (distiller_zoo/AB.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, Phase, at_least_float32, full_precision


def boundary_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], margin: float) -> Tensor:
    """3/1000 · Σ_s 2^(s − S) · squared distances to the right side of the margin, summed over a map, mean of the batch.

    Args:
        maps, targets: pre-activations of student and teacher, (B, C_s, H_s, W_s) for each stage, shallowest first. A
            teacher's neuron at exactly 0 is not active.
    """
    terms = []
    for steps_to_deepest, (x, target) in enumerate(zip(reversed(maps), reversed(targets), strict=True)):
        x, active = at_least_float32(x), target > 0
        off = (x + margin).square() * ((x > -margin) & ~active)
        on = (x - margin).square() * ((x <= margin) & active)
        terms.append((off + on).sum() / len(x) / 2**steps_to_deepest)
    return 3 / 1000 * torch.stack(terms).sum()


class Connector(nn.Module):
    """Convolution and batch normalisation from the shape of the student's map to the teacher's, (channels, height, width)."""

    def __init__(self, shape: tuple[int, int, int], target: tuple[int, int, int]):
        super().__init__()
        ratio = shape[1] // target[1]
        if not ratio:
            raise ValueError(f"the student's map {shape} has a lower resolution than the teacher's {target}")
        kernel = 1 if ratio == 1 else 3
        self.conv = nn.Conv2d(shape[0], target[0], kernel, stride=ratio, padding=kernel // 2)
        self.bn = nn.BatchNorm2d(target[0])

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x.device):
            return self.bn(self.conv(at_least_float32(x)))


class AB(Method):
    """Phase 1 trains the student without its classifier on `boundary_loss`, phase 2 the student on cross-entropy.

    Args:
        margin: of the pre-activations.
        share: of the budget that phase 1 gets.
        on_top: give phase 1 its images in addition to the budget.
    """

    needs_teacher = True

    margin: float
    share: float
    on_top: bool

    def setup(self) -> None:
        ours, theirs = self.stage_shapes(), self.stage_shapes(self.teacher)
        self.stages = min(len(ours), len(theirs))  # paired from the deepest
        pairs = zip(ours[-self.stages :], theirs[-self.stages :], strict=True)
        self.connectors = nn.ModuleList(nn.Identity() if a == b else Connector(a, b) for a, b in pairs)

    def phases(self) -> Sequence[Phase]:
        first = [*self.student.body().parameters(), *self.connectors.parameters()]
        return (
            Phase("boundaries", self.share, self.boundaries, trains=first, rate="constant", on_top=self.on_top),
            Phase("classes", trains=list(self.student.parameters())),
        )

    def boundaries(self, batch: Batch) -> dict[str, Tensor]:
        ours = self.student(batch.images, features=("preactivations",)).preactivations[-self.stages :]
        theirs = self.teach(batch, "preactivations").preactivations[-self.stages :]
        maps = [connector(x) for connector, x in zip(self.connectors, ours, strict=True)]
        return {"ab": boundary_loss(maps, theirs, self.margin)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}
