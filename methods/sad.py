"""SAD: each stage learns where the next one looks, without a teacher.

Hou, Ma, Liu and Loy, "Learning lightweight lane detection CNNs by self attention distillation", ICCV 2019.

Family: self
Loss: CE + w · Σ_{s<S} mean over images and positions of (σ(A(F_s)) − σ(A(up F_{s+1})))², A the mean of squares over the channels,
    σ the softmax over positions, up bilinear to the size of F_s; F_{s+1} is detached
Source: Self-KD-Lib (methods/sad.py); the authors' repository has no code of the loss in Python
Choice: `attention` is "mean" over the channels, as in the source; "sum" makes the softmax sharper by their number
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision


def attention(x: Tensor, over: Literal["mean", "sum"]) -> Tensor:
    """Softmax over the positions of a map's squares, averaged or summed over the channels; (B, C, H, W) to (B, H · W)."""
    squares = x.square()
    of_channels = squares.mean(dim=1) if over == "mean" else squares.sum(dim=1)
    return F.softmax(of_channels.flatten(1), dim=1)


def attention_loss(maps: Sequence[Tensor], over: Literal["mean", "sum"]) -> Tensor:
    """Squared difference of the attention of successive maps, averaged over images and positions, summed over the pairs.

    Args:
        maps: (B, C_s, H_s, W_s), shallowest first, at least two; the deeper map of each pair is detached.
        over: how `attention` reads the channels.
    """
    pairs = []
    for x, deeper in itertools.pairwise(maps):
        x, target = at_least_float32(x), at_least_float32(deeper.detach())
        # The target alone is resized, so that no gradient passes through the interpolation.
        target = F.interpolate(target, size=x.shape[2:], mode="bilinear", align_corners=False)
        pairs.append(F.mse_loss(attention(x, over), attention(target, over)))
    return torch.stack(pairs).sum()


class SAD(Method):
    """Cross-entropy and `attention_loss` of the stage maps.

    Args:
        weight: w. The loss is of the order of 1 / (H · W)², so a weight belongs to a resolution: 1000 for 32 × 32 positions is
            4 for 8 × 8.
        attention: over the channels.

    Raises:
        RunError: the student has a single stage.
    """

    weight: float
    attention: Literal["mean", "sum"]

    def setup(self) -> None:
        if (stages := len(self.stage_shapes())) < 2:
            raise RunError(f"sad needs a student with at least two stages; this one has {stages}")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        with full_precision(batch.images.device):
            loss = attention_loss(out.stages, self.attention)
        return {"ce": self.cross_entropy(out.logits, batch.labels), "attention": self.weight * loss}
