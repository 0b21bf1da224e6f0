"""What every student and teacher is: a classifier that can also show what it computed on the way."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdbench.precision import at_least_float32, full_precision


class Features(NamedTuple):
    """What a backbone computes for B images.

    Attributes:
        logits: (B, K), float32 also under autocast.
        stages: the map after each stage, (B, C_s, H_s, W_s), shallowest first, after the last ReLU of the stage.
        pooled: (B, C_S), the globally average-pooled deepest map, which the classifier reads; float32 as well.
    """

    logits: Tensor
    stages: tuple[Tensor, ...]
    pooled: Tensor


class Backbone(nn.Module):
    """Base class of all backbones. A subclass implements `stem`, `stage_modules`, and has a linear layer `fc`."""

    fc: nn.Linear
    images_passed: int = 0
    """Images that have passed through this network, in all its calls."""

    def __call__(self, images: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.images_passed += len(images)  # here and not in `forward`, which may be compiled
        return super().__call__(images, *args, **kwargs)

    def stem(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def stage_modules(self) -> tuple[nn.Module, ...]:
        raise NotImplementedError

    def forward(self, images: Tensor, features: bool = False) -> Tensor | Features:
        """Logits (B, K) of images (B, C, H, W); with `features`, everything in `Features`."""
        x = self.stem(images)
        stages = []
        for stage in self.stage_modules():
            x = stage(x)
            stages.append(x)
        # Under autocast the maps may be bfloat16; what losses are made of is not.
        with full_precision(x.device):
            pooled = at_least_float32(x).mean(dim=(2, 3))
            logits = self.fc(pooled)
        return Features(logits, tuple(stages), pooled) if features else logits

    @torch.no_grad()
    def stage_shapes(self, image_shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) of each stage map for an image of `image_shape`, found by passing zeros through."""
        was_training = self.training
        self.eval()
        device = next(self.parameters()).device
        out = self(torch.zeros(1, *image_shape, device=device), features=True)
        self.train(was_training)
        return tuple(tuple(stage.shape[1:]) for stage in out.stages)
