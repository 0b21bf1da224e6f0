"""VGG with batch normalisation for small images. Simonyan & Zisserman, ICLR 2015.

Parameters are named as in RepDistiller, so that the weights published there load: five blocks, of which the first is the
stem, and one linear layer instead of three.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone
from kdbench.backbones.initialise import he_normal

BACKBONES = {
    "vgg8": ("VGG", {"convolutions": (1, 1, 1, 1, 1)}),
    "vgg11": ("VGG", {"convolutions": (1, 1, 2, 2, 2)}),
    "vgg13": ("VGG", {"convolutions": (2, 2, 2, 2, 2)}),
    "vgg16": ("VGG", {"convolutions": (2, 2, 3, 3, 3)}),
    "vgg19": ("VGG", {"convolutions": (2, 2, 4, 4, 4)}),
}

_WIDTHS = (64, 128, 256, 512, 512)
_SMALLEST_POOLED = 8
"""The side of the smallest map that the last stage pools: images of 64 pixels and more are halved again."""


class Block(nn.Sequential):
    """3×3 convolutions, each with batch normalisation, and a ReLU after each but the last; max pooling comes before them.

    Args:
        smallest: maps of smaller sides are not pooled; 0 for no pooling at all.
    """

    def __init__(self, in_width: int, width: int, convolutions: int, smallest: int):
        layers: list[nn.Module] = []
        for first, second in pairwise([in_width, *[width] * convolutions]):
            layers += [nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU()]
        super().__init__(*layers[:-1])
        self.smallest = smallest

    def before_relu(self, x: Tensor) -> Tensor:
        """The block without its last ReLU."""
        if self.smallest and min(x.shape[2:]) >= self.smallest:
            x = F.max_pool2d(x, 2)
        out: Tensor = super().forward(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.before_relu(x))


class VGG(Backbone):
    """Five blocks of 3×3 convolutions: the stem, and four stages.

    Args:
        convolutions: number in each block.
        classes: number of logits K.
        channels: of the images.
    """

    def __init__(self, *, convolutions: tuple[int, ...], classes: int, channels: int):
        super().__init__()
        widths = (channels, *_WIDTHS)
        smallest = (0, 2, 2, 2, _SMALLEST_POOLED)
        for i, count in enumerate(convolutions):
            self.add_module(f"block{i}", Block(widths[i], widths[i + 1], count, smallest[i]))
        self.classifier = nn.Linear(_WIDTHS[-1], classes)
        he_normal(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(cast(Tensor, module.bias))

    @property
    def fc(self) -> nn.Linear:  # type: ignore[override]
        return self.classifier

    def stem(self, images: Tensor) -> Tensor:
        x: Tensor = self._block(0)(images)
        return x

    def stage_modules(self) -> tuple[Block, ...]:
        return tuple(self._block(i) for i in range(1, len(_WIDTHS)))

    def before_and_after_relu(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        before = self.stage_modules()[stage].before_relu(x)
        return before, F.relu(before)

    def last_bn(self, stage: int) -> nn.BatchNorm2d:
        return cast(nn.BatchNorm2d, self.stage_modules()[stage][-1])

    def _block(self, i: int) -> Block:
        return cast(Block, getattr(self, f"block{i}"))
