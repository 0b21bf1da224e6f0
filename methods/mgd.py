"""Masked generative distillation: from a masked map of the student a small network generates the whole map of the teacher.

Yang, Li, Shao, Shi, Yuan and Yuan, "Masked generative distillation", ECCV 2022.

Family: feature
Loss: CE + α/B · Σ (gen(mask ∘ align(F_S)) − F_S^t)²
Source: MGD (cls/mmcls/distillation/losses/mgd.py; det/ for the masked pixels)
Choice: α was published for ImageNet's maps of 512 × 7 × 7 numbers and multiplies a sum, so it is rescaled to the size of the
    teacher's map, α · 25088 / (C·H·W); MGD.rescaled=False takes it as it is.
Choice: channels are masked at 15 %, as for classification; MGD.mask='pixels' masks pixels, as for dense tasks (there
    MGD.masked=0.65 and MGD.weight=2e-5).
Choice: of unequal resolutions the larger map is averaged, the student's before the alignment.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import equal_resolution

PUBLISHED = 512 * 7 * 7
"""Numbers in a map of the networks that the weight was published for."""


def mgd_loss(generated: Tensor, target: Tensor) -> Tensor:
    """Squared difference of two maps (B, C, H, W), summed over a map, mean of the batch."""
    return (generated - at_least_float32(target)).square().sum() / len(target)


class Generator(nn.Module):
    """The teacher's map from a masked map of the student, in float32.

    Args:
        width, target: channels of the student's map and of the teacher's. Unequal ones are aligned by a 1×1 convolution.
    """

    def __init__(self, width: int, target: int):
        super().__init__()
        self.align = nn.Identity() if width == target else nn.Conv2d(width, target, 1)
        self.generate = nn.Sequential(
            nn.Conv2d(target, target, 3, padding=1), nn.ReLU(), nn.Conv2d(target, target, 3, padding=1)
        )

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """Map (B, C^t, H, W) of a map (B, C, H, W).

        Args:
            kept: (B, C^t, 1, 1) or (B, 1, H, W), False for the channels or pixels that are masked.
        """
        with full_precision(x.device):
            generated: Tensor = self.generate(self.align(at_least_float32(x)) * kept)
            return generated


class MGD(Method):
    """Cross-entropy and `mgd_loss` of the deepest maps.

    Args:
        weight: of `mgd_loss`.
        rescaled: multiply the weight by `PUBLISHED` over the numbers in the compared map.
        mask: mask whole channels, or pixels in all channels, of each image.
        masked: probability that one of them is masked.
        kd_weight, temperature: of distillation.
    """

    needs_teacher = True

    weight: float
    rescaled: bool
    mask: Literal["channels", "pixels"]
    masked: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        self.generator = Generator(self.stage_shapes()[-1][0], self.stage_shapes(self.teacher)[-1][0])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch)
        x, target = equal_resolution(out.stages[-1], taught.stages[-1])
        generated = self.generator(x, self._kept(batch, target))
        weight = self.weight * (PUBLISHED / target[0].numel() if self.rescaled else 1.0)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "mgd": weight * mgd_loss(generated, target),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }

    def _kept(self, batch: Batch, target: Tensor) -> Tensor:
        """Draw what is not masked, for the whole batch, and take this rank's part of it."""
        _, channels, height, width = target.shape
        images, device = len(batch.share.gather(target[:, 0, 0, 0])), target.device
        shape = (images, channels, 1, 1) if self.mask == "channels" else (images, 1, height, width)
        uniform = torch.rand(shape, generator=batch.streams("mask", device=device), device=device)
        return batch.share.own(uniform) >= self.masked
