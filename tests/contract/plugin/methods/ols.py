"""Online label smoothing: a label's soft form is the mean prediction for its class in the epoch before.

Zhang et al., "Delving deep into label smoothing", IEEE Transactions on Image Processing, 2021.
"""

from __future__ import annotations

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

    The matrix is zero in the first epoch, as in the authors' code, so that only the cross-entropy counts there.
    """

    matrix: Tensor
    sums: Tensor
    counts: Tensor

    ce_weight: float
    soft_weight: float

    def setup(self) -> None:
        classes = self.info.classes
        self.register_buffer("matrix", torch.zeros(classes, classes))
        self.register_buffer("sums", torch.zeros(classes, classes))
        self.register_buffer("counts", torch.zeros(classes))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = at_least_float32(self.student(batch.images))
        # The matrix is of all images, and the same on every GPU.
        sums, counts = class_sums(batch.share.gather(logits.detach()), batch.share.gather(batch.labels))
        self.sums += sums
        self.counts += counts
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "soft": self.soft_weight * soft_cross_entropy(logits, self.matrix[batch.labels]),
        }

    def after_epoch(self, epoch: int) -> None:
        self.matrix.copy_(class_means(self.sums, self.counts))
        self.sums.zero_()
        self.counts.zero_()
