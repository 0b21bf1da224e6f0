"""SimKD: the student's deepest map imitates the teacher's through a projector, and the teacher's classifier is deployed with them.

Chen, Mei, Zhang, Wang, Feng and Chen, "Knowledge distillation with the reused teacher classifier", CVPR 2022.

Family: feature
Loss: MSE(proj(F_S), F_S^t), and no cross-entropy; of maps of unequal resolution the larger is averaged first
Source: the authors' code (SimKD)
Choice: `factor` is 2 as in the authors' code; 4 and 8 are published as well
Choice: `kd_weight` adds KD on the logits of the deployed network, as the switch of the authors' code does; the definition has none
Choice: where layers lie between the teacher's deepest map and its average (WRN, MobileNetV2), the target is the map after them,
    because that is what the classifier reads; the authors' teachers have no such layers
Fault: the authors evaluate with the teacher, for the resolution of its map alone; here the projector knows it
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, full_precision, kd_term
from kdbench.method.connectors import ConvBN, pooled


def simkd_loss(projected: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of two maps (B, C, H, W); a teacher's map of higher resolution is averaged first."""
    return F.mse_loss(projected, pooled(target, projected.shape[2:]))


class Projector(nn.Sequential):
    """Three convolutions from the student's width to the teacher's, each with batch normalisation and ReLU.

    Args:
        width, target: channels of the student's deepest map and of the teacher's.
        factor: by which the middle is narrower than the target.
        limit: (height, width) to which a larger map is averaged first.
    """

    def __init__(self, width: int, target: int, factor: int, limit: Sequence[int]):
        middle = target // factor
        super().__init__(
            ConvBN(width, middle, relu=True), ConvBN(middle, middle, 3, relu=True), ConvBN(middle, target, relu=True)
        )
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        size = [min(sides) for sides in zip(x.shape[2:], self.limit, strict=True)]
        return cast(Tensor, super().forward(pooled(x, size)))  # type: ignore[no-untyped-call]


class ReusedClassifier(nn.Module):
    """The deployed network: the student without its classifier, the projector, and the teacher's classifier."""

    def __init__(self, body: nn.Module, projector: Projector, classifier: nn.Linear):
        super().__init__()
        self.body, self.projector, self.classifier = body, projector, classifier

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        return self.classify(self.projector(self.body(images)))

    def classify(self, projected: Tensor) -> Tensor:
        """Logits (B, K) of a projected map (B, C^t, H, W)."""
        with full_precision(projected.device):
            return cast(Tensor, self.classifier(projected.mean(dim=(2, 3))))


class SimKD(Method):
    """`simkd_loss` and nothing else: the labels are not used.

    Args:
        weight: of the loss.
        factor: by which the middle of the projector is narrower than the teacher's deepest map.
        kd_weight, temperature: of the KD term that comes in addition; none at weight 0.
    """

    needs_teacher = True

    weight: float
    factor: int
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        (width, *_), (last, *limit) = self.stage_shapes()[-1], self.stage_shapes(self.teacher)[-1]
        classifier = copy.deepcopy(self.teacher.fc)  # frozen, as the teacher is
        target = classifier.in_features
        if target != last and not self.teacher.neck_modules():
            raise RunError(
                f"simkd needs a teacher whose classifier reads the average of its deepest map: the map has {last} channels, "
                f"and the classifier reads {target} numbers"
            )
        if not 1 <= self.factor <= target:
            raise RunError(
                f"SimKD.factor={self.factor} must be between 1 and the {target} channels of the teacher's map"
            )
        for module in (*self.student.neck_modules(), self.student.fc):
            self.untrained(module)
        projector = Projector(width, target, self.factor, limit)
        self.network = ReusedClassifier(self.student.body(), projector, classifier)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        projected = self.network.projector(self.network.body(batch.images))
        taught = self.teach(batch, "unpooled")
        terms = {"simkd": self.weight * simkd_loss(projected, cast(Tensor, taught.unpooled))}
        if self.kd_weight:  # only then are logits needed
            terms |= kd_term(self.network.classify(projected), taught.logits, self.kd_weight, self.temperature)
        return terms

    def deployed(self) -> nn.Module:
        return self.network
