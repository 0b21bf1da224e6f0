"""HSAKD's teacher: further classifiers of class and rotation together after every stage, and the network learns from them.

Yang, An, Cai and Xu, "Hierarchical self-supervised augmented knowledge distillation", IJCAI 2021.

Family: self
Loss: CE(z, y) on images as they are + w · Σ over the stages of CE(q_s, 4y + r) on all four rotations, w = 1, q_s the joint logits
    (4K) of the classifier after stage s
Source: the authors' code (train_teacher_cifar.py)
Choice: a classifier after stage s is a newly drawn copy of the stages that follow, as in the authors' code. After the deepest
    stage, theirs is a copy of that stage without its stride; here it is as many residual blocks of two 3×3 convolutions as the
    stage has blocks (two where it is not made of equal blocks), which any network can have.
Choice: images are turned after augmentation, so that the four copies of an image are the same crop
Choice: as the teacher of `hsakd`, network and classifiers are trained together, as in the authors' figures with a star; their
    other form fits the classifiers to a network that was trained before
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Backbone, Batch, Method, he_normal
from kdbench.method.connectors import ConvBN
from kdbench.method.rotations import ROTATIONS, check_square, joint_labels, rotations


class Residual(nn.Module):
    """A residual block of two 3×3 convolutions on a map (B, width, H, W), whose shape it keeps."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(ConvBN(width, width, 3, relu=True), ConvBN(width, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


def block_count(stage: nn.Module) -> int:
    """Number of blocks of a stage, if these are of one class; else 2."""
    blocks = list(stage.children())
    while len(blocks) == 1 and isinstance(blocks[0], nn.Sequential):
        blocks = list(blocks[0])
    return len(blocks) if len({type(block) for block in blocks}) == 1 else 2


def joint_classifiers(network: Backbone, width: int, classes: int) -> nn.ModuleList:
    """A branch for the map of each stage, shallowest first, with 4 · `classes` logits; newly drawn.

    Args:
        width: channels of the deepest map.
    """
    stages = network.stage_modules()
    branches = [network.fresh_stages(first) for first in range(1, len(stages) + 1)]
    deepest = nn.Sequential(*(Residual(width) for _ in range(block_count(stages[-1]))))
    he_normal(deepest)
    branches[-1].stages.append(deepest)
    for branch in branches:
        branch.fc = nn.Linear(branch.fc.in_features, ROTATIONS * classes)
    return nn.ModuleList(branches)


def joint_logits(classifiers: nn.ModuleList, stages: tuple[Tensor, ...]) -> list[Tensor]:
    """Logits (B, 4 · K) of each of `joint_classifiers` on the map of its stage."""
    return [classifier(x).logits for classifier, x in zip(classifiers, stages, strict=True)]


class HSAKDTeacher(Method):
    """Cross-entropy of the network on images as they are, and of its joint classifiers on all rotations.

    Args:
        joint_weight: of the sum over the joint classifiers.
    """

    passes = 4

    joint_weight: float

    def setup(self) -> None:
        check_square("hsakd_teacher", self.info.image_shape)
        self.classifiers = joint_classifiers(self.student, self.stage_shapes()[-1][0], self.info.classes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(rotations(batch.images), features=True)
        labels = joint_labels(batch.labels)
        joint = [self.cross_entropy(q, labels) for q in joint_logits(self.classifiers, out.stages)]
        return {
            "ce": self.cross_entropy(out.logits[: len(batch.labels)], batch.labels),
            "joint_ce": self.joint_weight * torch.stack(joint).sum(),
        }
