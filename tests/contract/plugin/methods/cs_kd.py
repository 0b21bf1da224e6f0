"""Class-wise self-distillation: an image is to be judged as another image of its class is.

Yun, Park, Lee and Shin, "Regularizing class-wise predictions via self-knowledge distillation", CVPR 2020.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.method import Batch, ClassIndex, Method, distillation


class CSKD(Method):
    """Cross-entropy of the anchors, and T² · KL from a partner of the same class, which gets no gradient.

    Anchors and partners pass through the student apart, each normalised with their own statistics.
    """

    images_per_anchor = 2

    weight: float
    temperature: float

    def setup(self) -> None:
        self.class_index = ClassIndex(self.info.train_labels)

    def sample(self, anchors: Tensor, streams: Any) -> Tensor:
        return torch.cat([anchors, self.class_index.same_class(anchors, streams("partners"))])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        anchors, partners = batch.images.chunk(2)
        logits = self.student(anchors)
        with torch.no_grad():
            target = self.student(partners)
        return {
            "ce": self.cross_entropy(logits, batch.labels.chunk(2)[0]),
            "partner": self.weight * distillation(logits, target, self.temperature),
        }
