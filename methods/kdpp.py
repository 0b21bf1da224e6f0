"""KD++: knowledge distillation, and features that are long in the direction of the teacher's mean feature of the class.

Wang, Cheng, Duan, Wang, Feng and Kong, "Improving knowledge distillation via regularizing feature norm and direction",
arXiv 2305.17007, 2023.

Family: logit
Loss: CE + w(e) · k · T² · KL(softmax(z^t / T) ‖ softmax(z / T)) + n · mean_b(1 − f · e_y / max(‖f‖, ‖h‖)), w(e) = min(e / 20, 1)
Source: the authors' code for CIFAR-100 (CIFAR/utils.py, train_cifar_kd.py)
Choice: `first_epoch` is 1, as in other methods with a warm-up; the authors count from 0, which leaves the KL out of the first epoch
Choice: `dropped` is 0.5, as in the authors' layer between unequal widths
Choice: class means are those of images without augmentation, and are not rounded; the authors crop and mirror the images, and
    round the means to four decimals
Choice: the weights are those of resnet56 and resnet20; `kdpp_paper` has those of resnet32x4 and resnet8x4
Fault: the authors' script reads the class means of resnet56, whatever the teacher is; here the teacher computes its own
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, distillation, full_precision
from kdbench.method.connectors import dropout, normalised
from kdbench.method.logits import warm_up


def nd_loss(feature: Tensor, teacher_feature: Tensor, class_means: Tensor, labels: Tensor) -> Tensor:
    """1 − f · e_y / max(‖f‖, ‖h‖), batch mean: longer along e_y is better up to the teacher's length.

    It is 1, without a gradient, where both features are zero.

    Args:
        feature: f, (B, D).
        teacher_feature: h, (B, D).
        class_means: (K, D), of which e are the unit vectors.
        labels: y, (B,).
    """
    projection = (feature * normalised(class_means)[labels]).sum(dim=1)
    length = torch.maximum(*(torch.linalg.vector_norm(x, dim=1) for x in (feature, teacher_feature)))
    small = length < 1e-12
    return (1 - torch.where(small, 0.0, projection / length.masked_fill(small, 1.0))).mean()


class Connector(nn.Module):
    """Batch normalisation, drop-out and a linear layer from the student's width to the teacher's, in float32.

    Args:
        dropped: probability that a number is dropped in training.
    """

    def __init__(self, width: int, target: int, dropped: float):
        super().__init__()
        self.bn = nn.BatchNorm1d(width)
        self.linear = nn.Linear(width, target)
        self.dropped = dropped

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """Features (B, target) of features (B, width)."""
        x = self.bn(x)
        projected: Tensor = self.linear(dropout(x, self.dropped, batch) if self.training and self.dropped else x)
        return projected


class KDPP(Method):
    """Cross-entropy, T² · KL from the teacher with a weight that warms up, and `nd_loss` of the pooled features.

    Where the widths differ, a `Connector` leads from the student's feature to the teacher's.

    Args:
        ce_weight, kd_weight, nd_weight: of the three terms.
        temperature: T.
        warmup_epochs: epochs until the KL has its full weight; 0: from the beginning.
        first_epoch: number of the first epoch in the warm-up.
        dropped: probability of the connector's drop-out.
    """

    needs_teacher = True

    class_means: Tensor

    ce_weight: float
    kd_weight: float
    nd_weight: float
    temperature: float
    warmup_epochs: int
    first_epoch: int
    dropped: float

    def setup(self) -> None:
        width, target = self.student.fc.in_features, self.teacher.fc.in_features
        self.connector = None if width == target else Connector(width, target, self.dropped)
        self.register_buffer("class_means", torch.zeros(self.info.classes, target))

    def prepare(self, batches: Iterable[Batch]) -> None:
        sums, counts = torch.zeros_like(self.class_means), self.class_means.new_zeros(self.info.classes)
        for batch in batches:
            of_class = F.one_hot(batch.labels, self.info.classes).to(sums.dtype)
            sums += of_class.T @ self.teach(batch, "pooled").pooled
            counts += of_class.sum(dim=0)
        self.class_means.copy_(sums / counts.clamp(min=1).unsqueeze(1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, target = self.student(batch.images, features=True), self.teach(batch, "logits", "pooled")
        with full_precision(batch.images.device):
            feature = at_least_float32(out.pooled)
            feature = feature if self.connector is None else self.connector(feature, batch)
            nd = nd_loss(feature, at_least_float32(target.pooled), self.class_means, batch.labels)
        share = warm_up(batch.epoch - 1 + self.first_epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * self.cross_entropy(out.logits, batch.labels),
            "kd": share * self.kd_weight * distillation(out.logits, target.logits, self.temperature),
            "nd": self.nd_weight * nd,
        }
