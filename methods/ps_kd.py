"""PS-KD: labels are softened by what the student said of the image in the pass before, more and more.

Kim, Ji, Yoon and Hwang, "Self-knowledge distillation with progressive refinement of targets", ICCV 2021.

Family: self
Loss: (1 − α) · CE + α · soft CE(p′, z), α = 0.8 · e/E in epoch e of E, p′ the softmax that the image got in the epoch before;
    α = 0 in the first epoch
Source: the authors' code (PS-KD-Pytorch, main.py, loss/pskd_loss.py)
Choice: α grows with each epoch, as published; PSKD.growth='step' has it grow with each step.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kdbench.method import Batch, ImageMemory, Method, at_least_float32, soft_cross_entropy


class PSKD(Method):
    """(1 − α) · cross-entropy + α · soft cross-entropy with the image's last prediction; both are one with the softened label.

    Args:
        final: α at the end of training.
        growth: α grows at the beginning of each "epoch", or with each "step".
        dtype: of the memory of predictions, N × K.
        place: of that memory; "host" where the GPU has no room for it.
        limit_gib: of that memory.
    """

    final: float
    growth: Literal["epoch", "step"]
    dtype: Literal["float32", "float16"]
    place: Literal["device", "host"]
    limit_gib: float

    def setup(self) -> None:
        dtype = getattr(torch, self.dtype)
        self.predictions = ImageMemory(self.info.images, self.info.classes, dtype, self.place, self.limit_gib)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = at_least_float32(self.student(batch.images))
        before, alpha = self.predictions.read(batch), self.alpha(batch)
        self.predictions.write(batch, logits.softmax(dim=1))
        return {
            "ce": (1 - alpha) * self.cross_entropy(logits, batch.labels),
            "previous": alpha * soft_cross_entropy(logits, before),
        }

    def alpha(self, batch: Batch) -> float:
        """The share of the last prediction in the target; 0 in the first epoch, in which there is none."""
        if batch.epoch == 1:
            return 0.0
        return self.final * (
            batch.progress if self.growth == "step" else batch.epoch / max(self.info.epochs, batch.epoch)
        )
