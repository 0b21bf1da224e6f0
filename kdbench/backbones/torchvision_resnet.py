"""torchvision's residual networks with the stem for small images: a 3×3 convolution of stride 1, no max-pooling."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck

from kdbench.backbones.backbone import Backbone, around_last_relu
from kdbench.backbones.initialise import he_normal

BACKBONES = {
    "resnet18": ("TorchvisionResNet", {"original": "resnet18"}),
    "resnet34": ("TorchvisionResNet", {"original": "resnet34"}),
    "resnet50": ("TorchvisionResNet", {"original": "resnet50"}),
    "resnet101": ("TorchvisionResNet", {"original": "resnet101"}),
    "resnet152": ("TorchvisionResNet", {"original": "resnet152"}),
    "wide_resnet50_2": ("TorchvisionResNet", {"original": "wide_resnet50_2"}),
    "resnext50_32x4d": ("TorchvisionResNet", {"original": "resnext50_32x4d"}),
}


class TorchvisionResNet(Backbone):
    """A four-stage residual network; parameters are named as in torchvision.

    Args:
        original: the network's name in torchvision.models.
        classes: number of logits K.
        channels: of the images.
    """

    def __init__(self, *, original: str, classes: int, channels: int):
        super().__init__()
        network = getattr(models, original)(weights=None, num_classes=classes)
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = network.bn1
        self.layer1 = network.layer1
        self.layer2 = network.layer2
        self.layer3 = network.layer3
        self.layer4 = network.layer4
        self.fc = network.fc
        he_normal(self.conv1)  # the rest is, by torchvision

    def stem(self, images: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(images)))

    def stage_modules(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4

    def before_and_after_relu(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        return around_last_relu(self.stage_modules()[stage], _before_relu, x)

    def last_bn(self, stage: int) -> nn.BatchNorm2d:
        last = cast(BasicBlock | Bottleneck, self.stage_modules()[stage][-1])
        return cast(nn.BatchNorm2d, last.bn3 if isinstance(last, Bottleneck) else last.bn2)


def _before_relu(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    """torchvision's block without its last ReLU.

    Repeated here because its `forward` applies that ReLU in place, with the same module as the ReLUs before.
    """
    out: Tensor = block.relu(block.bn1(block.conv1(x)))
    out = block.bn2(block.conv2(out))
    if isinstance(block, Bottleneck):
        out = block.bn3(block.conv3(block.relu(out)))
    out += x if block.downsample is None else block.downsample(x)
    return out
