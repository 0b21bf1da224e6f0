"""SLA+SD: a head for classes and rotations together, and the classifier learns its mean over the rotations.

Lee, Hwang and Shin, "Self-supervised label augmentation via input transformations", ICML 2020, with self-distillation.

Family: self
Loss: CE(z, y) + mean over r of CE(joint head on rotation r, 4y + r) + T² · KL(softmax(a / T) ‖ softmax(z / T)),
    a_k = mean over r of the joint logit 4k + r on rotation r, detached, z of the image as it is, T = 1
Source: the authors' code (trainers.py, create_sla_sd_trainer)
Choice: `joint_weight` is 1 by default, as in the authors' code for small data sets; 4 is theirs for large ones
Choice: images are turned after augmentation, so that the four copies of an image are the same crop
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, distillation, full_precision
from kdbench.method.rotations import ROTATIONS, check_square, joint_labels, rotations


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
        check_square("sla_sd", self.info.image_shape)
        self.joint = nn.Linear(self.student.fc.in_features, ROTATIONS * self.info.classes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(rotations(batch.images), features=True)
        with full_precision(batch.images.device):
            joint = self.joint(out.pooled)
        own = out.logits[: len(batch.labels)]
        return {
            "ce": self.cross_entropy(own, batch.labels),
            "joint_ce": self.joint_weight * self.cross_entropy(joint, joint_labels(batch.labels)),
            "kd": self.kd_weight * distillation(own, aggregated(joint).detach(), self.temperature),
        }
