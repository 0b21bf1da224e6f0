"""Residual networks of pre-activation blocks, for small images: wide residual networks, PreAct-ResNets, SENet-18.

Wide ones (Zagoruyko & Komodakis, BMVC 2016) have their parameters named as in RepDistiller, so that the weights published
there load. The stage maps are, as there, the sums that leave a stage, before the normalisation and ReLU that the next stage
begins with: published results of methods that read maps belong to these.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone, without_trace
from kdbench.backbones.initialise import he_normal

BACKBONES = {
    "wrn_16_1": ("PreActResNet", {"blocks": (2, 2, 2), "widths": (16, 16, 32, 64)}),
    "wrn_16_2": ("PreActResNet", {"blocks": (2, 2, 2), "widths": (16, 32, 64, 128)}),
    "wrn_16_4": ("PreActResNet", {"blocks": (2, 2, 2), "widths": (16, 64, 128, 256)}),
    "wrn_28_2": ("PreActResNet", {"blocks": (4, 4, 4), "widths": (16, 32, 64, 128)}),
    "wrn_28_4": ("PreActResNet", {"blocks": (4, 4, 4), "widths": (16, 64, 128, 256)}),
    "wrn_28_10": ("PreActResNet", {"blocks": (4, 4, 4), "widths": (16, 160, 320, 640)}),
    "wrn_40_1": ("PreActResNet", {"blocks": (6, 6, 6), "widths": (16, 16, 32, 64)}),
    "wrn_40_2": ("PreActResNet", {"blocks": (6, 6, 6), "widths": (16, 32, 64, 128)}),
    "wrn_40_4": ("PreActResNet", {"blocks": (6, 6, 6), "widths": (16, 64, 128, 256)}),
    "preact_resnet18": ("PreActResNet", {"blocks": (2, 2, 2, 2), "widths": (64, 64, 128, 256, 512)}),
    "preact_resnet34": ("PreActResNet", {"blocks": (3, 4, 6, 3), "widths": (64, 64, 128, 256, 512)}),
    "senet18": ("PreActResNet", {"blocks": (2, 2, 2, 2), "widths": (64, 64, 128, 256, 512), "squeeze": 16}),
}


class SqueezeExcitation(nn.Module):
    """Scales each channel of a map by a number in (0, 1), computed from the means of all channels. Hu et al., CVPR 2018."""

    def __init__(self, width: int, reduction: int):
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // reduction, 1)
        self.fc2 = nn.Conv2d(width // reduction, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True))))
        scaled: Tensor = x * weights.sigmoid()
        return scaled


class Block(nn.Module):
    """Batch normalisation and ReLU before each of two 3×3 convolutions, beside a shortcut. He et al., ECCV 2016.

    Where the shape changes, the shortcut is a 1×1 convolution of the activated input.

    Args:
        squeeze: reduction of the squeeze-and-excitation before the sum; 0 for none.
    """

    def __init__(self, in_width: int, width: int, stride: int, squeeze: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.se = SqueezeExcitation(width, squeeze) if squeeze else nn.Identity()
        changes = stride != 1 or in_width != width
        self.convShortcut = nn.Conv2d(in_width, width, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return cast(Tensor, self.se(self.conv2(F.relu(self.bn2(self.conv1(active)))))) + shortcut


class Stage(nn.Module):
    """Blocks of one width."""

    def __init__(self, in_width: int, width: int, blocks: int, stride: int, squeeze: int):
        super().__init__()
        self.layer = nn.Sequential(
            Block(in_width, width, stride, squeeze), *(Block(width, width, 1, squeeze) for _ in range(blocks - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layer(x))


class PreActResNet(Backbone):
    """A 3×3 convolution and stages of pre-activation blocks; each stage but the first halves the resolution.

    Args:
        blocks: number in each stage.
        widths: channels of the first convolution and of the stages.
        squeeze: reduction of squeeze-and-excitation in every block; 0 for none.
        classes: number of logits K.
        channels: of the images.
    """

    signed_maps = True

    def __init__(
        self, *, blocks: tuple[int, ...], widths: tuple[int, ...], squeeze: int = 0, classes: int, channels: int
    ):
        super().__init__()
        self._stages = len(blocks)
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        for i, count in enumerate(blocks):
            stage = Stage(widths[i], widths[i + 1], count, 1 if i == 0 else 2, squeeze)
            self.add_module(f"block{i + 1}", stage)
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self.relu = nn.ReLU()
        self.fc = nn.Linear(widths[-1], classes)
        he_normal(self)

    def stem(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.conv1(images))

    def stage_modules(self) -> tuple[Stage, ...]:
        return tuple(cast(Stage, getattr(self, f"block{i + 1}")) for i in range(self._stages))

    def neck_modules(self) -> tuple[nn.Module, ...]:
        return self.bn1, self.relu

    def before_and_after_relu(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stage_modules()[stage](x)
        return without_trace(self.last_bn(stage), x), x

    def last_bn(self, stage: int) -> nn.BatchNorm2d:
        """The normalisation of the map that leaves `stage`: the first of the next stage, or that of the neck."""
        following = self.stage_modules()[stage:][1:2]
        return cast(nn.BatchNorm2d, following[0].layer[0].bn1 if following else self.bn1)
