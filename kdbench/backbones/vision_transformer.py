"""Small vision transformers: patches of a small image as tokens, encoder blocks, mean pooling. Dosovitskiy et al., ICLR 2021.

The tokens form a grid, so that each stage, a third of the blocks, has a map like a convolutional network's. Position
embeddings are sinusoidal and fixed, so that any image size works; there is no class token (Beyer et al., "Better plain ViT
baselines for ImageNet-1k", 2022).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone

BACKBONES = {
    "vit_tiny": ("VisionTransformer", {"width": 192, "heads": 3, "blocks": 12, "patch": 4}),
    "vit_small": ("VisionTransformer", {"width": 384, "heads": 6, "blocks": 12, "patch": 4}),
}

_STAGES = 3


class Encoder(nn.Module):
    """Blocks of self-attention and of a two-layer perceptron, on a map whose positions are the tokens."""

    def __init__(self, width: int, heads: int, blocks: int):
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(x.flatten(2).transpose(1, 2))
        grid: Tensor = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        return grid


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels at each position of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class VisionTransformer(Backbone):
    """Patches, three stages of encoder blocks, and layer normalisation before the pooling.

    Args:
        width: channels of a token; a multiple of 4.
        heads: of the attention.
        blocks: in all; a third of them is a stage.
        patch: side of a patch, in pixels.
        classes: number of logits K.
        channels: of the images.
    """

    signed_maps = True

    def __init__(self, *, width: int, heads: int, blocks: int, patch: int, classes: int, channels: int):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.stages = nn.ModuleList(Encoder(width, heads, blocks // _STAGES) for _ in range(_STAGES))
        self.norm = ChannelNorm(width)
        self.fc = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def stem(self, images: Tensor) -> Tensor:
        x = self.patches(images)
        _, width, height, length = x.shape
        placed: Tensor = x + positions(width, height, length, x.device).to(x.dtype)
        return placed

    def stage_modules(self) -> tuple[nn.Module, ...]:
        return tuple(self.stages)

    def neck_modules(self) -> tuple[nn.Module, ...]:
        return (self.norm,)


def positions(width: int, height: int, length: int, device: torch.device) -> Tensor:
    """Sines and cosines of the row and of the column of each position, (width, height, length)."""
    quarter = width // 4
    frequencies = torch.exp(-math.log(10_000) * torch.arange(quarter, device=device) / quarter)
    rows = (frequencies[:, None] * torch.arange(height, device=device)).unsqueeze(2).expand(-1, -1, length)
    columns = (frequencies[:, None] * torch.arange(length, device=device)).unsqueeze(1).expand(-1, height, -1)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()])
