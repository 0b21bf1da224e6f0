"""HSSAKD online: two networks with joint classifiers of class and rotation teach one another after every stage.

Yang, An, Cai and Xu, "Hierarchical self-supervised augmented knowledge distillation", IJCAI 2021, in its online form.

Family: online
Base: hsakd_teacher
Loss: Σ over both networks of [CE(z, y) on images as they are + Σ_s CE(q_s, 4y + r) on all rotations] + w · [KL_T both ways of the
    logits + Σ_s KL_T both ways of the joint logits], both over all rotations, KL_T(t → z) = T² · KL(softmax(t / T) ‖
    softmax(z / T)), t detached, q_s the joint logits (4K) after stage s, w = 1, T = 3
Source: the authors' code (train_online_kd_cifar.py)
Choice: `peer` is None by default, a second network of the student's architecture; another needs as many stages
Choice: the classifiers are those of `hsakd_teacher`
Choice: images are turned after augmentation, so that the four copies of an image are the same crop
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.method import Batch, RunError
from kdbench.method.rotations import check_square, joint_labels, rotations
from kdbench.methods.hsakd import joint_loss
from kdbench.methods.hsakd_teacher import HSAKDTeacher, joint_classifiers, joint_logits


def mutual_loss(logits: list[Tensor], others: list[Tensor], temperature: float) -> Tensor:
    """`joint_loss` both ways, each network's classifiers with those of the other as targets; (B, K) for each classifier."""
    loss: Tensor = joint_loss(logits, others, temperature) + joint_loss(others, logits, temperature)
    return loss


class HSSAKD(HSAKDTeacher):  # type: ignore[misc]  # mypy does not look into methods by their module
    """The losses of `hsakd_teacher` for the student and for a peer, which is dropped after training, and their `mutual_loss`.

    Args:
        mutual_weight: of the `mutual_loss`.
        temperature: of the `mutual_loss`.
        peer: architecture of the second network; None: the student's.
    """

    mutual_weight: float
    temperature: float
    peer: str | None

    def setup(self) -> None:
        check_square("hssakd", self.info.image_shape)
        super().setup()
        other = self.add_peer(self.peer)
        shapes = self.stage_shapes(other)
        if len(shapes) != len(self.stage_shapes()):
            raise RunError(
                f"hssakd needs as many stages in the student as in its peer, not {len(self.stage_shapes())} and {len(shapes)}, "
                "because it compares classifiers after each; take networks of one family"
            )
        self.peer_classifiers = joint_classifiers(other, shapes[-1][0], self.info.classes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        images, labels = rotations(batch.images), joint_labels(batch.labels)
        both, terms = [], {}
        for name, network, classifiers in zip(
            ("", "peer_"), self.networks(), (self.classifiers, self.peer_classifiers), strict=True
        ):
            out = network(images, features=True)
            joint = joint_logits(classifiers, out.stages)
            both.append([out.logits, *joint])
            terms[f"{name}ce"] = self.cross_entropy(out.logits[: len(batch.labels)], batch.labels)
            of_each = torch.stack([self.cross_entropy(q, labels) for q in joint])
            terms[f"{name}joint_ce"] = self.joint_weight * of_each.sum()
        own, other = both
        return {**terms, "mutual": self.mutual_weight * mutual_loss(own, other, self.temperature)}
