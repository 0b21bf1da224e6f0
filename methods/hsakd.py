"""HSAKD: the student learns the teacher's logits and its joint logits of class and rotation after every stage.

Yang, An, Cai and Xu, "Hierarchical self-supervised augmented knowledge distillation", IJCAI 2021.

Family: logit
Loss: CE(z, y) on images as they are + w_kd · KL_T(zᵗ → z) + w_q · Σ over the stages of KL_T(q_sᵗ → q_s), both over all rotations,
    q_s the joint logits (4K) after stage s, KL_T(t → z) = T² · KL(softmax(t / T) ‖ softmax(z / T)), w_kd = w_q = 1, T = 3
Source: the authors' code (train_student_cifar.py)
Choice: the teacher is that of `hsakd_teacher`, trained together with its classifiers on the budget of any teacher (the authors'
    figures with a star). It is better than one that `ce` trains, so compare with `kd` from the same teacher as well:
    methods=kd with teacher=RUN.
Choice: the student's classifiers are those of `hsakd_teacher`, and have no cross-entropy, as in the authors' code
Choice: images are turned after augmentation, so that the four copies of an image are the same crop
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from kdbench.method import Batch, Method, RunError, distillation
from kdbench.method.rotations import check_square, rotations
from kdbench.methods.hsakd_teacher import HSAKDTeacher, joint_classifiers, joint_logits


def joint_loss(joint: Sequence[Tensor], targets: Sequence[Tensor], temperature: float) -> Tensor:
    """T² · KL(softmax(target / T) ‖ softmax(joint / T)), batch mean, summed over the stages.

    Args:
        joint, targets: (4 · B, 4 · K) for each stage; the targets have no gradient.
    """
    pairs = zip(joint, targets, strict=True)
    return torch.stack([distillation(q, target.detach(), temperature) for q, target in pairs]).sum()


class HSAKD(Method):
    """Cross-entropy on images as they are, and on all rotations the teacher's logits and joint logits.

    Args:
        kd_weight, joint_weight: of the divergence from the teacher's logits, and of the sum over the stages.
        temperature: T of all of them.
    """

    needs_teacher = True
    passes = 4

    kd_weight: float
    joint_weight: float
    temperature: float

    def setup(self) -> None:
        check_square("hsakd", self.info.image_shape)
        if not isinstance(self.teachers[0].method, HSAKDTeacher):
            raise RunError("hsakd needs a teacher with joint classifiers, which a run of hsakd_teacher trains")
        ours, theirs = (len(network.stage_modules()) for network in (self.student, self.teacher))
        if ours != theirs:
            raise RunError(
                f"hsakd needs as many stages in the student as in the teacher, not {ours} and {theirs}, because it compares "
                "classifiers after each; take networks of one family"
            )
        self.classifiers = joint_classifiers(self.student, self.stage_shapes()[-1][0], self.info.classes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        images = rotations(batch.images)
        out, taught = self.student(images, features=True), self.teach_images(images)
        joint = joint_logits(self.classifiers, out.stages)
        trained = cast(HSAKDTeacher, self.teachers[0].method)  # as `setup` saw
        with torch.no_grad():
            targets = joint_logits(trained.classifiers, taught.stages)
        return {
            "ce": self.cross_entropy(out.logits[: len(batch.labels)], batch.labels),
            "kd": self.kd_weight * distillation(out.logits, taught.logits, self.temperature),
            "joint": self.joint_weight * joint_loss(joint, targets, self.temperature),
        }
