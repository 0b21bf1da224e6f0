"""torchvision's residual networks with the stem for small images: a 3×3 convolution of stride 1, no max-pooling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from kdbench.backbones.backbone import Backbone
from kdbench.backbones.initialise import he_normal

BACKBONES = {
    "resnet18": ("TorchvisionResNet", {"depth": 18}),
    "resnet34": ("TorchvisionResNet", {"depth": 34}),
    "resnet50": ("TorchvisionResNet", {"depth": 50}),
}


class TorchvisionResNet(Backbone):
    """A four-stage residual network; parameters are named as in torchvision.

    Args:
        depth: 18, 34 or 50.
        classes: number of logits K.
        channels: of the images.
    """

    def __init__(self, *, depth: int, classes: int, channels: int):
        super().__init__()
        original = getattr(models, f"resnet{depth}")(weights=None, num_classes=classes)
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = original.bn1
        self.layer1 = original.layer1
        self.layer2 = original.layer2
        self.layer3 = original.layer3
        self.layer4 = original.layer4
        self.fc = original.fc
        he_normal(self.conv1)  # the rest is, by torchvision

    def stem(self, images: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(images)))

    def stage_modules(self) -> tuple[nn.Module, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4
