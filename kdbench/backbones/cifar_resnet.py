"""The residual networks for CIFAR: three stages, 6n + 2 layers. He et al., CVPR 2016, section 4.2.

Parameters are named, and shortcuts are convolutions, as in RepDistiller, so that the weights published there load.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone, around_last_relu
from kdbench.backbones.initialise import he_normal

BACKBONES = {
    "resnet8": ("CifarResNet", {"depth": 8, "widths": (16, 16, 32, 64)}),
    "resnet14": ("CifarResNet", {"depth": 14, "widths": (16, 16, 32, 64)}),
    "resnet20": ("CifarResNet", {"depth": 20, "widths": (16, 16, 32, 64)}),
    "resnet32": ("CifarResNet", {"depth": 32, "widths": (16, 16, 32, 64)}),
    "resnet44": ("CifarResNet", {"depth": 44, "widths": (16, 16, 32, 64)}),
    "resnet56": ("CifarResNet", {"depth": 56, "widths": (16, 16, 32, 64)}),
    "resnet110": ("CifarResNet", {"depth": 110, "widths": (16, 16, 32, 64)}),
    "resnet8x4": ("CifarResNet", {"depth": 8, "widths": (32, 64, 128, 256)}),
    "resnet32x4": ("CifarResNet", {"depth": 32, "widths": (32, 64, 128, 256)}),
}


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, in_width: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_width != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_width, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.before_relu(x))

    def before_relu(self, x: Tensor) -> Tensor:
        """The block without its last ReLU."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        total: Tensor = self.bn2(self.conv2(out)) + shortcut
        return total


class CifarResNet(Backbone):
    """A residual network with a 3×3 stem and three stages of basic blocks; the second and third halve the resolution.

    Args:
        depth: 6n + 2 layers, n blocks a stage.
        widths: channels of the stem and of the three stages.
        classes: number of logits K.
        channels: of the images.
    """

    def __init__(self, *, depth: int, widths: tuple[int, int, int, int], classes: int, channels: int):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2, not {depth}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[1], blocks, stride=1)
        self.layer2 = _stage(widths[1], widths[2], blocks, stride=2)
        self.layer3 = _stage(widths[2], widths[3], blocks, stride=2)
        self.fc = nn.Linear(widths[3], classes)
        he_normal(self)

    def stem(self, images: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(images)))

    def stage_modules(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3

    def before_and_after_relu(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        return around_last_relu(self.stage_modules()[stage], BasicBlock.before_relu, x)

    def last_bn(self, stage: int) -> nn.BatchNorm2d:
        return cast(BasicBlock, self.stage_modules()[stage][-1]).bn2


def _stage(in_width: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_width, width, stride), *(BasicBlock(width, width, stride=1) for _ in range(blocks - 1))
    )
