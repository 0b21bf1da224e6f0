"""Virtual softmax: a further class, whose logit is the largest that the true class could have, keeps the classes apart.

Chen, Deng and Shen, "Virtual class enhanced discriminative embedding learning", NeurIPS 2018.

Family: regulariser
Loss: CE over K + 1 logits, the last of them ‖W_y‖ · ‖g‖, W_y the classifier's row of the true class and g the pooled feature
Source: the formula; Self-KD-Lib (models/resnet.py)
Choice: the classifier has no bias, as in the paper; `bias` keeps it, as in Self-KD-Lib, whose option for it is never used
Choice: the product of the norms is taken as it is; `clip` has the least and the largest value that other code allows, (1e-4, 50)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision

EPSILON = 1e-12
"""Added to squared norms, whose roots then have a gradient at 0."""


def virtual_logit(pooled: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """‖W_y‖ · ‖g‖ of each image (B,), with gradient through both norms.

    Args:
        pooled: (B, C), what the classifier reads.
        weight: (K, C) of the classifier.
        labels: (B,).
    """
    squares = at_least_float32(pooled).square().sum(dim=1), at_least_float32(weight).square().sum(dim=1)[labels]
    of_feature, of_row = ((each + EPSILON).sqrt() for each in squares)
    return of_feature * of_row


def with_virtual_class(logits: Tensor, virtual: Tensor) -> Tensor:
    """Logits (B, K + 1) from logits (B, K) and those of the virtual class (B,)."""
    return torch.cat([at_least_float32(logits), virtual.unsqueeze(1)], dim=1)


class VirtualSoftmax(Method):
    """Cross-entropy with one more class, which is there in training alone.

    Args:
        bias: the classifier keeps its bias; otherwise it stays 0.
        clip: least and largest logit of the virtual class; () leaves it as it is.
    """

    bias: bool
    clip: tuple[float, ...]

    def setup(self) -> None:
        if len(self.clip) not in (0, 2):
            raise RunError("VirtualSoftmax.clip must be two numbers, such as (1e-4, 50.0), or ()")
        if not self.bias and self.student.fc.bias is not None:
            nn.init.zeros_(self.student.fc.bias)
            self.student.fc.bias.requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        with full_precision(batch.labels.device):
            virtual = virtual_logit(out.pooled, self.student.fc.weight, batch.labels)
        if self.clip:
            virtual = virtual.clamp(*self.clip)
        return {"ce": self.cross_entropy(with_virtual_class(out.logits, virtual), batch.labels)}
