"""FRSKD: a pyramid on top of the stages refines their maps, and the network learns its maps and its classifier.

Ji, Shin, Hwang, Park and Moon, "Refine myself by teaching myself: feature refinement via self-knowledge distillation", CVPR 2021.

Family: self
Loss: CE(z, y) + CE(z_T, y) + 2 · T² · KL(softmax(z_T / T) ‖ softmax(z / T)) + 100 · Σ_s mean over (b, i) of (a(F_s) − a(R_s))²,
    T = 4, a(F) = norm over the pixels of (mean over channels of F²), R_s the pyramid's maps and z_T its classifier, both detached
    as targets
Source: the authors' code (MingiJi/FRSKD, BiFPNc); the attention is that of `at`
Choice: the authors' pyramid needs maps of which each has twice the size of the next. Other maps are repeated to the size of the
    shallower one on the way up, and their maximum is taken with the stride that fits on the way down, so that every network does.
Choice: `width` is 2 by default, as in the authors' code: the pyramid has twice the channels of the network at each level
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, distillation, full_precision
from kdbench.method.connectors import ConvBN
from kdbench.methods.at import attention_loss
from kdbench.methods.reviewkd import resized

EPSILON = 1e-6  # of the authors, in the denominator of the fusion weights


def pooled_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Maxima over 3 × 3 pixels (more where the stride is larger) with the stride that leads a map (B, C, H, W) to `size`.

    Zeros are added on both sides so that every pixel is covered. At twice the size the stride is 2.
    """
    strides = [math.ceil(side / wanted) for side, wanted in zip(x.shape[2:], size, strict=True)]
    kernels = [max(3, stride) for stride in strides]
    padding: list[int] = []
    for side, stride, kernel in zip(x.shape[2:], strides, kernels, strict=True):
        missing = (math.ceil(side / stride) - 1) * stride + kernel - side
        padding = [missing // 2, missing - missing // 2, *padding]  # the last axis comes first
    maxima: Tensor = resized(F.max_pool2d(F.pad(x, padding), kernels, strides), size)
    return maxima


class Fusion(nn.Module):
    """A weighted mean of maps of one shape (B, C, H, W), then twice a depth-wise 3×3 and a 1×1 convolution with normalisation.

    Args:
        maps: number of maps; their weights start equal and stay positive.
        width: C.
    """

    def __init__(self, maps: int, width: int):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(maps))
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), ConvBN(width, width), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, *maps: Tensor) -> Tensor:
        """Map (B, C, H, W), not negative."""
        positive = F.relu(self.weights)
        shares = positive / (positive.sum() + EPSILON)
        fused: Tensor = self.convolutions((shares.view(-1, 1, 1, 1, 1) * torch.stack(maps)).sum(dim=0))
        return fused


class Pyramid(nn.Module):
    """Refined maps and a classifier, from the maps of all stages, in float32: from the deepest to the shallowest and back.

    Args:
        widths: channels of the stage maps.
        classes: number of logits K.
        factor: channels of the refined maps for each of the stage's.
    """

    def __init__(self, widths: Sequence[int], classes: int, factor: int):
        super().__init__()
        wide, deepest = [factor * width for width in widths], len(widths) - 1
        self.lateral = nn.ModuleList(_changed(*pair) for pair in zip(widths, wide, strict=True))
        self.second_lateral = nn.ModuleList(_changed(*pair) for pair in zip(widths[1:], wide[1:], strict=True))
        self.up = nn.ModuleList(_changed(wide[level + 1], wide[level]) for level in range(deepest))
        self.up_fusion = nn.ModuleList(Fusion(2, wide[level]) for level in range(deepest))
        self.down = nn.ModuleList(_changed(wide[level], wide[level + 1]) for level in range(deepest))
        self.down_fusion = nn.ModuleList(
            Fusion(2 if level == deepest else 3, wide[level]) for level in range(1, deepest + 1)
        )
        self.fc = nn.Linear(wide[-1], classes)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, K) and refined maps (B, factor · C_s, H_s, W_s) of stage maps (B, C_s, H_s, W_s), shallowest first."""
        with full_precision(stages[0].device):
            maps = [F.relu(at_least_float32(x)) for x in stages]
            sizes = [x.shape[2:] for x in maps]
            path = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
            for level in reversed(range(len(maps) - 1)):
                above = self.up[level](resized(path[level + 1], sizes[level]))
                path[level] = self.up_fusion[level](path[level], above)
            refined = path[:1]
            for level, (lateral, x) in enumerate(zip(self.second_lateral, maps[1:], strict=True), start=1):
                below = self.down[level - 1](pooled_to(refined[-1], sizes[level]))
                between = path[level : level + 1] if level < len(maps) - 1 else []
                refined.append(self.down_fusion[level - 1](lateral(x), *between, below))
            return self.fc(refined[-1].mean(dim=(2, 3))), refined


def _changed(width: int, target: int) -> ConvBN:
    return ConvBN(width, target, relu=True)


class FRSKD(Method):
    """Cross-entropy of the network and of its pyramid, which teaches it by `distillation` and `attention_loss`, and is dropped.

    Args:
        kd_weight, temperature: of the distillation.
        attention_weight: of the attention loss. A term of it is at most 2 over the number of pixels: maps of 2 × 2 pixels want a
            smaller weight than those of 32 × 32.
        width: channels of the pyramid for each channel of the network.
    """

    kd_weight: float
    temperature: float
    attention_weight: float
    width: int

    def setup(self) -> None:
        widths = [channels for channels, _, _ in self.stage_shapes()]
        self.pyramid = Pyramid(widths, self.info.classes, self.width)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        logits, refined = self.pyramid(out.stages)
        targets = [x.detach() for x in refined]
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "pyramid_ce": self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * distillation(out.logits, logits.detach(), self.temperature),
            "attention": self.attention_weight * attention_loss(out.stages, targets, "squared"),
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        return {"pyramid": self.pyramid(self.student(images, features=True).stages)[0]}
