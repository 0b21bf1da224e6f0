"""KD++: knowledge distillation, and features that are long in the direction of the teacher's mean feature of the class.

Wang, Cheng, Duan, Wang, Feng and Kong, "Improving knowledge distillation via regularizing feature norm and direction",
arXiv 2305.17007, 2023.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, distillation, full_precision


def nd_loss(feature: Tensor, teacher_feature: Tensor, class_means: Tensor, labels: Tensor) -> Tensor:
    """1 − f · e_y / max(‖f‖, ‖h‖), batch mean: longer along e_y is better up to the teacher's length.

    Args:
        feature: f, (B, D).
        teacher_feature: h, (B, D).
        class_means: (K, D), of which e are the unit vectors.
        labels: y, (B,).
    """
    projection = (feature * F.normalize(class_means, dim=1)[labels]).sum(dim=1)
    length = torch.maximum(feature.norm(dim=1), teacher_feature.norm(dim=1))
    return (1 - projection / length.clamp(min=1e-12)).mean()


class KDPP(Method):
    """Cross-entropy, T² · KL from the teacher, and `nd_loss`. The KL term is off in the first epoch and then warms up.

    Where the widths differ, a normalised linear layer leads from the student's feature to the teacher's. The authors'
    drop-out before it is left out.

    Args:
        warmup_epochs: epochs until the KL term has its full weight.
    """

    needs_teacher = True

    class_means: Tensor

    ce_weight: float
    kd_weight: float
    nd_weight: float
    temperature: float
    warmup_epochs: int

    def setup(self) -> None:
        width, wanted = self.student.fc.in_features, self.teacher.fc.in_features
        self.connector = (
            nn.Identity() if width == wanted else nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, wanted))
        )
        self.register_buffer("class_means", torch.zeros(self.info.classes, wanted))

    def prepare(self, batches: Iterable[Batch]) -> None:
        sums, counts = torch.zeros_like(self.class_means), 0
        for batch in batches:
            of_class = F.one_hot(batch.labels, self.info.classes).to(sums.dtype)
            sums += of_class.T @ self.teach(batch, "pooled").pooled
            counts += of_class.sum(dim=0)
        self.class_means.copy_(sums / counts.clamp(min=1).unsqueeze(1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, target = self.student(batch.images, features=True), self.teach(batch, "logits", "pooled")
        with full_precision(batch.images.device):
            feature = self.connector(at_least_float32(out.pooled))
            nd = nd_loss(feature, at_least_float32(target.pooled), self.class_means, batch.labels)
        kd_weight = self.kd_weight * min((batch.epoch - 1) / self.warmup_epochs, 1.0)
        return {
            "ce": self.ce_weight * self.cross_entropy(out.logits, batch.labels),
            "kd": kd_weight * distillation(out.logits, target.logits, self.temperature),
            "nd": self.nd_weight * nd,
        }
