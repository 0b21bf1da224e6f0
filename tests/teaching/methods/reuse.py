"""The teacher's classifier is deployed with the student, like simkd (Chen et al., CVPR 2022)."""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Backbone, Batch, Method


class Reused(nn.Module):
    """The student's map, projected to what the teacher's classifier reads."""

    def __init__(self, student: Backbone, width: int, projected: int, fc: nn.Linear):
        super().__init__()
        self.student = student
        self.projection = nn.Conv2d(width, projected, 1)
        self.fc = copy.deepcopy(fc)

    def feature(self, images: Tensor) -> Tensor:
        """The projected, pooled map, (B, C)."""
        return self.projection(self.student(images, features=True).stages[-1]).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.fc(self.feature(images))


class Reuse(Method):
    """Squared distance of the projected feature from the teacher's."""

    needs_teacher = True

    def setup(self) -> None:
        width, projected = self.student.fc.in_features, self.teacher.fc.in_features
        self.reused = Reused(self.student, width, projected, self.teacher.fc)
        self.untrained(self.reused.fc)
        self.untrained(self.student.fc)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"feature": F.mse_loss(self.reused.feature(batch.images), self.teach(batch, "pooled").pooled)}

    def deployed(self) -> nn.Module:
        return self.reused
