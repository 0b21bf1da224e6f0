"""Online label smoothing: a label's soft form is the mean prediction for its class in the epoch before.

Zhang, Jiang, Hou, Wei, Han, Li and Cheng, "Delving deep into label smoothing", IEEE Transactions on Image Processing, 2021.

Family: self
Loss: 0.5 · CE + 0.5 · soft CE(Q_y, z), Q_k the mean softmax of the images of class k that were classified rightly in the epoch
    before, 1/K where there was none
Source: the authors' code (OnlineLabelSmoothing, cifar/)
Choice: in the first epoch Q is zero, as in the authors' code for CIFAR, which leaves half a cross-entropy; OLS.first='ce' gives the
    cross-entropy its whole weight there, and 'uniform' begins with 1/K, as their code for fine-grained datasets does.
Choice: OLS.frozen_at=1.0 never freezes a row of Q; their code for fine-grained datasets has 0.88, and weights of 1 for both terms.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, soft_cross_entropy


def class_sums(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each class the summed softmax (K, K) of its rightly classified images, and their number (K,).

    Args:
        logits: (B, K).
        labels: (B,).
    """
    right = (logits.argmax(dim=1) == labels).to(logits.dtype)
    of_class = F.one_hot(labels, logits.shape[1]).to(logits.dtype) * right.unsqueeze(1)
    return of_class.T @ logits.softmax(dim=1), of_class.sum(dim=0)


def class_means(sums: Tensor, counts: Tensor) -> Tensor:
    """The mean of each class (K, K); uniform where a class has no image."""
    uniform = torch.full_like(sums, 1 / len(counts))
    return torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp(min=1).unsqueeze(1), uniform)


class OLS(Method):
    """Cross-entropy, and soft cross-entropy with the image's row of the matrix of class means.

    Args:
        ce_weight, soft_weight: of the two terms.
        first: what the first epoch has in place of the matrix: "zero", nothing; "ce", nothing, and both weights on the
            cross-entropy; "uniform", equal shares.
        frozen_at: a row whose largest share has reached this is not replaced any more; 1: each row is replaced.
    """

    matrix: Tensor
    sums: Tensor
    counts: Tensor

    ce_weight: float
    soft_weight: float
    first: Literal["zero", "ce", "uniform"]
    frozen_at: float

    def setup(self) -> None:
        classes = self.info.classes
        matrix = torch.zeros(classes, classes)
        self.register_buffer("matrix", matrix + 1 / classes if self.first == "uniform" else matrix)
        self.register_buffer("sums", torch.zeros(classes, classes))
        self.register_buffer("counts", torch.zeros(classes))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = at_least_float32(self.student(batch.images))
        # The matrix is of all images, and the same on every GPU.
        sums, counts = class_sums(batch.share.gather(logits.detach()), batch.share.gather(batch.labels))
        self.sums += sums
        self.counts += counts
        whole = self.first == "ce" and batch.epoch == 1
        weight = self.ce_weight + self.soft_weight if whole else self.ce_weight
        return {
            "ce": weight * self.cross_entropy(logits, batch.labels),
            "soft": self.soft_weight * soft_cross_entropy(logits, self.matrix[batch.labels]),
        }

    def after_epoch(self, epoch: int) -> None:
        frozen = (self.matrix.amax(dim=1, keepdim=True) >= self.frozen_at) & (self.frozen_at < 1)
        self.matrix.copy_(torch.where(frozen, self.matrix, class_means(self.sums, self.counts)))
        self.sums.zero_()
        self.counts.zero_()
