"""ShuffleNets for small images. Zhang et al., CVPR 2018 (V1), and Ma et al., ECCV 2018 (V2).

As in RepDistiller, by whose names the parameters go: the stem is a 1×1 convolution and keeps the resolution, and V1's
group convolutions make three groups.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone, around_last_relu
from kdbench.backbones.initialise import he_normal

BACKBONES = {
    "shufflenetv1": ("ShuffleNetV1", {"widths": (240, 480, 960), "blocks": (4, 8, 4), "groups": 3}),
    "shufflenetv2": ("ShuffleNetV2", {"widths": (116, 232, 464, 1024)}),
    "shufflenetv2_x0_5": ("ShuffleNetV2", {"widths": (48, 96, 192, 1024)}),
    "shufflenetv2_x1_5": ("ShuffleNetV2", {"widths": (176, 352, 704, 1024)}),
}

_STEM = 24
_BLOCKS_V2 = (4, 8, 4)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """The channels of (B, C, H, W) so that neighbours come from different groups."""
    batch, width, *size = x.shape
    return x.view(batch, groups, width // groups, *size).transpose(1, 2).reshape(batch, width, *size)


class GroupedBlock(nn.Module):
    """V1: grouped 1×1, shuffle, 3×3 depth-wise, grouped 1×1; added to its shortcut, or beside the pooled one at stride 2."""

    def __init__(self, in_width: int, width: int, stride: int, groups: int):
        super().__init__()
        self.stride = stride
        new = width - in_width if stride == 2 else width
        inner = new // 4
        self.first_groups = 1 if in_width == _STEM else groups
        self.conv1 = nn.Conv2d(in_width, inner, 1, groups=self.first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, new, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(new)

    def before_relu(self, x: Tensor) -> Tensor:
        """The block without its last ReLU."""
        out = shuffle(F.relu(self.bn1(self.conv1(x))), self.first_groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1) if self.stride == 2 else out + x

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.before_relu(x))


class SplitBlock(nn.Module):
    """V2: one half of the channels as they are, the other through 1×1, 3×3 depth-wise and 1×1; then shuffled."""

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def before_relu(self, x: Tensor) -> Tensor:
        """The block without its last ReLU; the half that it passes on has been through one already."""
        kept, x = x.chunk(2, dim=1)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return shuffle(torch.cat([kept, self.bn3(self.conv3(out))], dim=1), 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.before_relu(x))


class DownBlock(nn.Module):
    """V2 at stride 2: both halves of the output come from all channels; then shuffled."""

    def __init__(self, in_width: int, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(in_width, in_width, 3, stride=2, padding=1, groups=in_width, bias=False)
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv2 = nn.Conv2d(in_width, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_width, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        return F.relu(shuffle(torch.cat([left, self.bn5(self.conv5(right))], dim=1), 2))


class ShuffleNet(Backbone):
    """The stem and three stages that both versions have; each stage halves the resolution."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    linear: nn.Linear

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)

    @property
    def fc(self) -> nn.Linear:  # type: ignore[override]
        return self.linear

    def stem(self, images: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(images)))

    def stage_modules(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3

    def before_and_after_relu(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        return around_last_relu(self.stage_modules()[stage], lambda block, entering: block.before_relu(entering), x)


class ShuffleNetV1(ShuffleNet):
    """ShuffleNet.

    Args:
        widths: channels of the stages.
        blocks: number in each stage.
        groups: of the 1×1 convolutions.
        classes: number of logits K.
        channels: of the images.
    """

    def __init__(self, *, widths: tuple[int, ...], blocks: tuple[int, ...], groups: int, classes: int, channels: int):
        super().__init__(channels)
        before = (_STEM, *widths)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                GroupedBlock(before[i], width, 2, groups),
                *(GroupedBlock(width, width, 1, groups) for _ in range(blocks[i] - 1)),
            )
            for i, width in enumerate(widths)
        )
        self.linear = nn.Linear(widths[-1], classes)
        he_normal(self)

    def last_bn(self, stage: int) -> nn.BatchNorm2d:
        return cast(GroupedBlock, self.stage_modules()[stage][-1]).bn3


class ShuffleNetV2(ShuffleNet):
    """ShuffleNetV2, with a 1×1 convolution before the pooling.

    Args:
        widths: channels of the stages, and of the last convolution.
        classes: number of logits K.
        channels: of the images.
    """

    def __init__(self, *, widths: tuple[int, int, int, int], classes: int, channels: int):
        super().__init__(channels)
        before = (_STEM, *widths)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(DownBlock(before[i], width), *(SplitBlock(width) for _ in range(_BLOCKS_V2[i] - 1)))
            for i, width in enumerate(widths[:3])
        )
        self.conv2 = nn.Conv2d(widths[2], widths[3], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.relu = nn.ReLU()
        self.linear = nn.Linear(widths[3], classes)
        he_normal(self)

    def neck_modules(self) -> tuple[nn.Module, ...]:
        return self.conv2, self.bn2, self.relu
