"""SRRL: the student's adapted feature imitates the teacher's, and so does what the teacher's classifier makes of it.

Yang, Martinez, Bulat and Tzimiropoulos, "Knowledge distillation via softmax regression representation learning", ICLR 2021.

Family: feature
Loss: CE + w_f · MSE(f, g^t) + w_r · MSE(W^t f + b^t, z^t), f = average of ReLU(BN(1×1 conv(F_S)))
Source: the authors' code for ImageNet (KD_SRRL); the form on the pooled feature is that of the SimKD toolbox
Choice: `connect` is "map" as in the authors' code, where the average follows the ReLU; "pooled" adapts the averaged feature
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, kd_term
from kdbench.method.connectors import ConvBN


class Connector(ConvBN):
    """1×1 convolution, batch normalisation and ReLU, then the average over the pixels."""

    def __init__(self, width: int, target: int):
        super().__init__(width, target, relu=True, wide_normal=True)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C^t) of a map (B, C, H, W) or of a pooled feature (B, C)."""
        return super().forward(x if x.dim() == 4 else x[:, :, None, None]).mean(dim=(2, 3))


class SRRL(Method):
    """Cross-entropy, and squared errors of the adapted feature and of what the teacher's classifier makes of it.

    Args:
        feature_weight, regression_weight: of the two errors, each a mean over batch and width.
        connect: the student's deepest "map", or its "pooled" feature.
        kd_weight, temperature: of the KD term that comes in addition; none at weight 0.
    """

    needs_teacher = True

    feature_weight: float
    regression_weight: float
    connect: Literal["map", "pooled"]
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        width = self.stage_shapes()[-1][0] if self.connect == "map" else self.student.fc.in_features
        self.connector = Connector(width, self.teacher.fc.in_features)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "logits", "pooled")
        feature = self.connector(out.stages[-1] if self.connect == "map" else out.pooled)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "feature": self.feature_weight * F.mse_loss(feature, taught.pooled),
            "regression": self.regression_weight * F.mse_loss(self.teacher.classify(feature), taught.logits),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
