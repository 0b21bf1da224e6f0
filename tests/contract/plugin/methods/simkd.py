"""SimKD: the student's body learns to feed the teacher's classifier, which is deployed in place of its own.

Chen, Mei, Zhang, Wang, Feng and Chen, "Knowledge distillation with the reused teacher classifier", CVPR 2022.
"""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision


def simkd_loss(projected: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of two maps (B, C, H, W); a teacher's map of higher resolution is pooled first."""
    return F.mse_loss(projected, F.adaptive_avg_pool2d(at_least_float32(target), projected.shape[2:]))


class Projector(nn.Sequential):
    """Three convolutions from the student's width to the teacher's, each with batch normalisation and ReLU.

    Args:
        width, target: channels of the student's deepest map and of the teacher's.
        factor: by which the middle is narrower than the target.
        limit: (height, width) to which a larger map is pooled first.
    """

    def __init__(self, width: int, target: int, factor: int, limit: tuple[int, int]):
        middle = target // factor
        super().__init__(*_conv(width, middle, 1), *_conv(middle, middle, 3), *_conv(middle, target, 1))
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x.device):
            size = [min(sides) for sides in zip(x.shape[2:], self.limit, strict=True)]
            return super().forward(F.adaptive_avg_pool2d(at_least_float32(x), size))


def _conv(width: int, target: int, kernel: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(width, target, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(target), nn.ReLU()


class ReusedClassifier(nn.Module):
    """What is deployed: the student without its classifier, the projector, and the teacher's classifier."""

    def __init__(self, body: nn.Module, projector: Projector, classifier: nn.Linear):
        super().__init__()
        self.body, self.projector, self.classifier = body, projector, classifier

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        feature = self.projector(self.body(images)).mean(dim=(2, 3))
        with full_precision(images.device):
            return self.classifier(feature)


class SimKD(Method):
    """`simkd_loss` and nothing else: the labels are not used.

    Args:
        factor: by which the middle of the projector is narrower than the teacher's deepest map.
    """

    needs_teacher = True

    factor: int

    def setup(self) -> None:
        (width, *_), (target, *limit) = self.stage_shapes()[-1], self.stage_shapes(self.teacher)[-1]
        self.untrained(self.student.fc)
        classifier = copy.deepcopy(self.teacher.fc)  # frozen, as the teacher is
        projector = Projector(width, target, self.factor, tuple(limit))
        self.network = ReusedClassifier(self.student.body(), projector, classifier)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        projected = self.network.projector(self.network.body(batch.images))
        return {"simkd": simkd_loss(projected, self.teach(batch, "stages").stages[-1])}

    def deployed(self) -> nn.Module:
        return self.network
