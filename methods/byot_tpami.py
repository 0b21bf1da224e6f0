"""BYOT with attention: light exits behind masks of attention learn the deepest classifier's logits and feature.

Zhang, Bao and Ma, "Self-distillation: towards efficient and compact neural networks", TPAMI 2021.

Family: self
Base: byot
Loss: CE(z_S, y) + Σ_s (0.7 · CE(z_s, y) + 0.3 · soft CE(softmax(z_S / 3), z_s / 3)) + 0.03 · Σ_s ‖A_s h_s − h_S‖, s over the
    shallow exits, the norm over the whole batch, A_s a linear layer, z_S and h_S detached
Source: the authors' code (pytorch-self-distillation-final)
Choice: `hints` is "published" by default: a comment in the authors' code leaves the hint of the shallowest exit out, but their list
    begins with the deepest, so that the exit next to the deepest classifier has none. "comment" is what the comment says.
Choice: the hint is one norm over the batch, as in the authors' code: neither squared nor a mean over the images, it grows with the
    root of the batch size, to which its weight belongs. `reference_batch` = 0 leaves it; another number scales it to that size.
Choice: the authors double the resolution of a mask, and average over 4 × 4 pixels; here a mask gets the size of its map, and the
    average is over all pixels. Blocks halve also maps of transformers; a map of one pixel keeps its size.
Fault: the authors make the linear layers A_s at the first step, one of them unused; here they are made in the beginning, for the
    exits with a hint alone
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision, he_normal, soft_cross_entropy
from kdbench.method.connectors import separable
from kdbench.method.exits import numbered


def logit_loss(exit_logits: Tensor, deepest_logits: Tensor, temperature: float) -> Tensor:
    """Soft cross-entropy of an exit with the softened deepest classifier, batch mean, without the factor T².

    Args:
        exit_logits, deepest_logits: (B, K); the deepest is detached.
    """
    target = F.softmax(at_least_float32(deepest_logits).detach() / temperature, dim=1)
    return soft_cross_entropy(at_least_float32(exit_logits) / temperature, target)


def hint_loss(adapted: Tensor, deepest_feature: Tensor) -> Tensor:
    """L2 norm of the difference of (B, C) and (B, C) over all images and channels, not squared; the deepest is detached."""
    difference = at_least_float32(adapted) - at_least_float32(deepest_feature).detach()
    norm: Tensor = torch.linalg.vector_norm(difference)
    return norm


class Exit(nn.Module):
    """A shallow classifier in float32: a mask of attention, separable blocks, the average, a linear layer.

    Args:
        widths: channels of its stage map and of those of all deeper stages; the last is the width of the averaged feature.
        classes: number of logits K.
    """

    def __init__(self, widths: Sequence[int], classes: int):
        super().__init__()
        first, *_, last = widths
        self.attention = nn.Sequential(separable(first, first), nn.BatchNorm2d(first), nn.ReLU())
        self.blocks = nn.Sequential(*(separable(one, other) for one, other in pairwise(widths)))
        self.fc = nn.Linear(last, classes)
        he_normal(self)

    def forward(self, stage: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and averaged feature (B, C) of a stage map (B, C_s, H_s, W_s)."""
        with full_precision(stage.device):
            x = at_least_float32(stage)
            mask = F.interpolate(self.attention(x), size=x.shape[2:], mode="bilinear", align_corners=False).sigmoid()
            feature = self.blocks(mask * x).mean(dim=(2, 3))
            return self.fc(feature), feature


class BYOTTPAMI(Method):
    """Cross-entropy of the deepest classifier; cross-entropy, `logit_loss` and `hint_loss` of the shallow exits.

    Args:
        ce_weight, logit_weight, hint_weight: of the terms of each exit.
        temperature: T of the logit loss.
        hints: which exits have a hint, "published": all but the deepest of them; "comment": all but the shallowest.
        reference_batch: images in a batch to whose size the hint is scaled; 0 leaves it as it is.
    """

    ce_weight: float
    logit_weight: float
    hint_weight: float
    temperature: float
    hints: Literal["published", "comment"]
    reference_batch: int

    def setup(self) -> None:
        shallow = len(self.stage_shapes()) - 1
        width = self.student.fc.in_features
        widths = [*(channels for channels, _, _ in self.stage_shapes()[:-1]), width]
        self.shallow = nn.ModuleList(Exit(widths[stage:], self.info.classes) for stage in range(shallow))
        self.first_hint = 0 if self.hints == "published" else 1
        self.adapters = nn.ModuleList(nn.Linear(width, width) for _ in range(shallow - 1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        logits, features = zip(*(one(x) for one, x in zip(self.shallow, out.stages, strict=False)), strict=True)
        ce = torch.stack([self.cross_entropy(z, batch.labels) for z in logits]).sum()
        logit = torch.stack([logit_loss(z, out.logits, self.temperature) for z in logits]).sum()
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "exit_ce": self.ce_weight * ce,
            "exit_logit": self.logit_weight * logit,
            "exit_hint": self.hint_weight * self._hint(features, out.pooled, batch),
        }

    def _hint(self, features: Sequence[Tensor], deepest: Tensor, batch: Batch) -> Tensor:
        """Sum of the hints, of the whole batch."""
        target = batch.share.gather(deepest.detach())
        total = target.new_zeros(())
        with full_precision(target.device):
            for adapter, feature in zip(self.adapters, features[self.first_hint :], strict=False):
                total = total + hint_loss(batch.share.gather(adapter(feature)), target)
        return total * math.sqrt(self.reference_batch / len(target)) if self.reference_batch else total

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.student(images, features=True).stages
        return numbered("exit", (one(x)[0] for one, x in zip(self.shallow, stages, strict=False)))
