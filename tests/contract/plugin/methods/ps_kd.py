"""Progressive self-distillation: labels are softened with what the student said of the image an epoch ago.

Kim, Ji, Yoon and Hwang, "Self-knowledge distillation with progressive refinement of targets", ICCV 2021.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kdbench.method import Batch, ImageMemory, Method, at_least_float32, soft_cross_entropy


class PSKD(Method):
    """(1 − α) · cross-entropy + α · soft cross-entropy with the image's last prediction, α growing from 0 to `final`.

    Both together are the cross-entropy with the softened label. In the first epoch there is no prediction yet, and α is 0.
    α grows with each step; the paper's grows with each epoch.

    Args:
        final: α at the end of training.
        dtype: of the memory of predictions, N × K.
        place: of that memory; "host" where the GPU has no room for it.
        limit_gib: of that memory.
    """

    final: float
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
        return 0.0 if batch.epoch == 1 else self.final * batch.progress
