"""Overhaul of feature distillation: maps before the last ReLU of each stage, with a margin for what the teacher suppresses.

Heo, Kim, Yun, Park, Kwak and Choi, "A comprehensive overhaul of feature distillation", ICCV 2019; values as in the authors'
code for CIFAR-100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision


def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Mean of the negative responses of each channel, (C,), if they are normal with the scale and shift of the last BN.

    Args:
        weight, bias: (C,) of the batch normalisation.
    """
    spread = weight.abs().clamp(min=torch.finfo(weight.dtype).tiny)
    below = torch.special.ndtr(-bias / spread)
    density = torch.exp(-(bias**2) / (2 * spread**2)) / math.sqrt(2 * math.pi)
    mean = torch.where(below > 0.001, bias - spread * density / below.clamp(min=0.001), -3 * spread)
    return torch.where(weight == 0, bias.clamp(max=0), mean)


def ofd_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], margins: Sequence[Tensor]) -> Tensor:
    """1/1000 · Σ_s 2^(s − S) · squared distances summed over a map, mean of the batch.

    Where both are below the margin there is no distance.

    Args:
        maps, targets: pre-activations of student (connected) and teacher, (B, C_s, H_s, W_s) for each stage, shallowest first.
        margins: (C_s,) for each stage.
    """
    terms = []
    for steps_to_deepest, (x, target, low) in enumerate(zip(*map(reversed, (maps, targets, margins)), strict=True)):
        x, target = at_least_float32(x), torch.maximum(at_least_float32(target), low[:, None, None])
        distance = (x - target).square() * ((x > target) | (target > 0))
        terms.append(distance.sum() / len(x) / 2**steps_to_deepest)
    return torch.stack(terms).sum() / 1000


class Connector(nn.Module):
    """1×1 convolution without bias and batch normalisation, from the student's width to the teacher's."""

    def __init__(self, width: int, target: int):
        super().__init__()
        self.conv = nn.Conv2d(width, target, 1, bias=False)
        self.bn = nn.BatchNorm2d(target)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / target))

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x.device):
            return self.bn(self.conv(at_least_float32(x)))


class OFD(Method):
    """Cross-entropy and `ofd_loss`, on stages of equal resolution, paired from the deepest.

    Args:
        weight: of the loss.
        batch_statistics: normalise the teacher with the statistics of the batch, as the authors do.
    """

    needs_teacher = True

    weight: float
    batch_statistics: bool

    def setup(self) -> None:
        ours, theirs = self.stage_shapes(), self.stage_shapes(self.teacher)
        self.stages = min(len(ours), len(theirs))
        pairs = zip(ours[-self.stages :], theirs[-self.stages :], strict=True)
        self.connectors = nn.ModuleList(Connector(a[0], b[0]) for a, b in pairs)
        for stage in range(self.stages):
            bn = self.teacher.last_bn(len(theirs) - self.stages + stage)
            self.register_buffer(f"margin_{stage}", margin(bn.weight.detach(), bn.bias.detach()))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=("preactivations",))
        taught = self.teach(batch, "preactivations", batch_statistics=self.batch_statistics)
        maps = [connector(x) for connector, x in zip(self.connectors, out.preactivations[-self.stages :], strict=True)]
        margins = [self.get_buffer(f"margin_{stage}") for stage in range(self.stages)]
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "ofd": self.weight * ofd_loss(maps, taught.preactivations[-self.stages :], margins),
        }
