"""torchvision's EfficientNet-B0 for small images. Tan & Le, ICML 2019.

Its first convolution and its first down-sampling keep the resolution.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchvision.models import efficientnet_b0
from torchvision.models.efficientnet import MBConv

from kdbench.backbones.backbone import Backbone

BACKBONES: dict[str, tuple[str, dict[str, object]]] = {"efficientnet_b0": ("EfficientNet", {})}

_STAGES = ((1, 3), (3, 4), (4, 6), (6, 8))
"""Ranges of torchvision's blocks: a stage ends before each halving of the resolution."""


class EfficientNet(Backbone):
    """Four stages of inverted residuals with squeeze-and-excitation and SiLU, and a 1×1 convolution before the pooling.

    Args:
        classes: number of logits K.
        channels: of the images.
    """

    signed_maps = True

    def __init__(self, *, classes: int, channels: int):
        super().__init__()
        # What is drawn at random in training is the harness's business: no dropout, no stochastic depth.
        original = efficientnet_b0(weights=None, num_classes=classes, stochastic_depth_prob=0.0)
        first, *blocks, last = original.features
        first[0] = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(first[0].weight, mode="fan_out")  # as torchvision initialises the rest
        blocks[1][0].block[1][0].stride = (1, 1)
        self.first = first
        self.stages = nn.ModuleList(nn.Sequential(*blocks[a - 1 : b - 1]) for a, b in _STAGES)
        self.last = last
        self.fc = cast(nn.Linear, original.classifier[1])

    def stem(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.first(images))

    def stage_modules(self) -> tuple[nn.Module, ...]:
        return tuple(self.stages)

    def neck_modules(self) -> tuple[nn.Module, ...]:
        return (self.last,)

    def before_and_after_relu(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stages[stage](x)
        return x, x  # no activation follows a linear bottleneck

    def last_bn(self, stage: int) -> nn.BatchNorm2d:
        group = cast(nn.Sequential, cast(nn.Sequential, self.stages[stage])[-1])
        return cast(nn.BatchNorm2d, cast(nn.Sequential, cast(MBConv, group[-1]).block[-1])[1])
