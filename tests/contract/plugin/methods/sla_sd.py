"""Self-supervised label augmentation: a head for classes and rotations together, and a classifier that learns its mean.

Lee, Hwang and Shin, "Self-supervised label augmentation via input transformations", ICML 2020, with self-distillation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, distillation, full_precision

ROTATIONS = 4


def rotated(images: Tensor) -> Tensor:
    """The images (B, C, H, H) turned by 0, 90, 180 and 270 degrees, (4 · B, C, H, H) in blocks of B."""
    return torch.cat([images.rot90(turns, dims=(2, 3)) for turns in range(ROTATIONS)])


def joint_labels(labels: Tensor) -> Tensor:
    """The label 4y + r of each rotated image, (4 · B,) in blocks of B; labels (B,)."""
    return torch.cat([ROTATIONS * labels + turns for turns in range(ROTATIONS)])


def aggregated(joint: Tensor) -> Tensor:
    """Mean over the rotations r of the logits of the classes at rotation r, (B, K); joint (4 · B, 4 · K) in blocks of B."""
    return torch.stack([block[:, turns::ROTATIONS] for turns, block in enumerate(joint.chunk(ROTATIONS))]).mean(dim=0)


class SLASD(Method):
    """Cross-entropy of the joint head on all rotations and of the classifier on the image as it is, and distillation.

    Args:
        joint_weight, kd_weight: of the joint head's cross-entropy and of the distillation.
        temperature: T of the distillation.
    """

    passes = 4

    joint_weight: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        _, height, width = self.info.image_shape
        if height != width:
            raise RunError(f"sla_sd rotates images, which must be square, not {height} × {width}")
        self.joint = nn.Linear(self.student.fc.in_features, ROTATIONS * self.info.classes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(rotated(batch.images), features=True)
        with full_precision(batch.images.device):
            joint = self.joint(out.pooled)
        own = out.logits[: len(batch.labels)]
        return {
            "ce": self.cross_entropy(own, batch.labels),
            "joint_ce": self.joint_weight * self.cross_entropy(joint, joint_labels(batch.labels)),
            "kd": self.kd_weight * distillation(own, aggregated(joint).detach(), self.temperature),
        }
