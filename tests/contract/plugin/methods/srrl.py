"""Softmax regression representation learning: the student's adapted feature is read by the teacher's own classifier.

Yang, Martinez, Bulat and Tzimiropoulos, "Knowledge distillation via softmax regression representation learning", ICLR 2021.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision


class Connector(nn.Module):
    """1×1 convolution without bias, batch normalisation and ReLU, then the average over the pixels."""

    def __init__(self, width: int, target: int):
        super().__init__()
        self.conv = nn.Conv2d(width, target, 1, bias=False)
        self.bn = nn.BatchNorm2d(target)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / target))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C^t) of a map (B, C, H, W) or of a pooled feature (B, C)."""
        with full_precision(x.device):
            x = at_least_float32(x if x.dim() == 4 else x[:, :, None, None])
            return F.relu(self.bn(self.conv(x))).mean(dim=(2, 3))


class SRRL(Method):
    """Cross-entropy, and squared errors of the adapted feature and of what the teacher's classifier makes of it.

    Args:
        feature_weight, regression_weight: of the two errors, each a mean over batch and width.
        connect: the student's deepest "map", as in the authors' code, or its "pooled" feature, as in SimKD's.
    """

    needs_teacher = True

    feature_weight: float
    regression_weight: float
    connect: Literal["map", "pooled"]

    def setup(self) -> None:
        self.connector = Connector(self.student.fc.in_features, self.teacher.fc.in_features)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "logits", "pooled")
        feature = self.connector(out.stages[-1] if self.connect == "map" else out.pooled)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "feature": self.feature_weight * F.mse_loss(feature, taught.pooled),
            "regression": self.regression_weight * F.mse_loss(self.teacher.classify(feature), taught.logits),
        }
