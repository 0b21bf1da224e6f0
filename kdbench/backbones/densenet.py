"""torchvision's densely connected networks with the stem for small images. Huang et al., CVPR 2017.

A stage is a dense block. Its map is the concatenation that leaves it, before the normalisation and ReLU of the transition
to the next.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchvision.models.densenet import DenseNet as Original

from kdbench.backbones.backbone import Backbone, without_trace

BACKBONES = {
    "densenet121": ("DenseNet", {"growth": 32, "layers": (6, 12, 24, 16)}),
    "densenet_40_12": ("DenseNet", {"growth": 12, "layers": (6, 6, 6)}),
}


class DenseNet(Backbone):
    """A 3×3 convolution and dense blocks of bottleneck layers; transitions between them halve channels and resolution.

    Args:
        growth: channels that each layer adds.
        layers: number in each block.
        classes: number of logits K.
        channels: of the images.
    """

    signed_maps = True

    def __init__(self, *, growth: int, layers: tuple[int, ...], classes: int, channels: int):
        super().__init__()
        original = Original(growth, layers, num_init_features=2 * growth, num_classes=classes)
        parts = original.features
        self.conv = nn.Conv2d(channels, 2 * growth, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)  # as torchvision initialises the rest
        self.blocks = nn.ModuleList()
        for i in range(1, len(layers) + 1):
            before = [parts.get_submodule(f"transition{i - 1}")] if i > 1 else []
            self.blocks.append(nn.Sequential(*before, parts.get_submodule(f"denseblock{i}")))
        self.norm = parts.get_submodule("norm5")
        self.relu = nn.ReLU()
        self.fc = original.classifier

    def stem(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.conv(images))

    def stage_modules(self) -> tuple[nn.Module, ...]:
        return tuple(self.blocks)

    def neck_modules(self) -> tuple[nn.Module, ...]:
        return self.norm, self.relu

    def before_and_after_relu(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks[stage](x)
        return without_trace(self.last_bn(stage), x), x

    def last_bn(self, stage: int) -> nn.BatchNorm2d:
        """The normalisation of the map that leaves `stage`: of the next transition, or of the neck."""
        if stage == len(self.blocks) - 1:
            return cast(nn.BatchNorm2d, self.norm)
        return cast(nn.BatchNorm2d, cast(nn.Sequential, self.blocks[stage + 1])[0].norm)
