"""MobileNetV2 for small images. Sandler et al., CVPR 2018.

As in RepDistiller, by whose names the parameters go: half the width, ReLU, stride 2 in the stem, and a second stage of stride 1.
The stage maps are linear bottlenecks, with negative values.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone
from kdbench.backbones.initialise import he_normal

BACKBONES = {
    "mobilenetv2": ("MobileNetV2", {"width": 0.5}),
    "mobilenetv2_x1": ("MobileNetV2", {"width": 1.0}),
}

# Expansion, channels at width 1, blocks, stride; stages end after those of 24, 32, 96 and 320 channels.
_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STAGES = ((0, 1), (2,), (3, 4), (5, 6))
_NECK = 1280


class InvertedResidual(nn.Module):
    """1×1 convolution to `expansion` times the width, 3×3 depth-wise, and a linear 1×1; beside a shortcut where shapes agree."""

    def __init__(self, in_width: int, width: int, stride: int, expansion: int):
        super().__init__()
        inner = expansion * in_width
        self.is_residual = stride == 1 and in_width == width
        self.conv = nn.Sequential(
            *_convolution(in_width, inner, 1),
            *_convolution(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        out = cast(Tensor, self.conv(x))
        return x + out if self.is_residual else out


class MobileNetV2(Backbone):
    """A 3×3 convolution of stride 2, four stages of inverted residuals, and a 1×1 convolution before the pooling.

    Args:
        width: multiplies the channels of all but the last convolution.
        classes: number of logits K.
        channels: of the images.
    """

    signed_maps = True

    def __init__(self, *, width: float, classes: int, channels: int):
        super().__init__()
        last = int(32 * width)
        self.conv1 = nn.Sequential(*_convolution(channels, last, 3, stride=2))
        self.blocks = nn.ModuleList()
        for expansion, full, count, stride in _GROUPS:
            group = nn.Sequential()
            for i in range(count):
                group.append(InvertedResidual(last, int(full * width), stride if i == 0 else 1, expansion))
                last = int(full * width)
            self.blocks.append(group)
        # In a tuple, so that nn.Module does not register them: the names in the state dict are those of `blocks`.
        self._stages = tuple(nn.Sequential(*(self.blocks[i] for i in groups)) for groups in _STAGES)
        self.conv2 = nn.Sequential(*_convolution(last, _NECK, 1))
        self.classifier = nn.Sequential(nn.Linear(_NECK, classes))
        he_normal(self)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    @property
    def fc(self) -> nn.Linear:  # type: ignore[override]
        return cast(nn.Linear, self.classifier[0])

    def stem(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.conv1(images))

    def stage_modules(self) -> tuple[nn.Sequential, ...]:
        return self._stages

    def neck_modules(self) -> tuple[nn.Module, ...]:
        return (self.conv2,)

    def before_and_after_relu(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stage_modules()[stage](x)
        return x, x  # no ReLU follows a linear bottleneck

    def last_bn(self, stage: int) -> nn.BatchNorm2d:
        group = cast(nn.Sequential, self.blocks[_STAGES[stage][-1]])
        return cast(nn.BatchNorm2d, cast(InvertedResidual, group[-1]).conv[-1])


def _convolution(in_width: int, width: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(in_width, width, size, stride, padding=size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU()]
