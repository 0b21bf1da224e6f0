"""TOFD: exits of student and teacher compare, through nearly orthogonal links, the features that their tasks have shaped.

Zhang, Shi, Shi, Ma and Bao, "Task-oriented feature distillation", NeurIPS 2020.

Family: feature
Loss: Σ_i [CE(z_i, y) + w · soft CE(z_i, z_i^t; T_e) + α · ‖L_i h_i − h_i^t‖] + β · Σ_i (‖L_i L_iᵀ − I‖_F + ‖L_iᵀ L_i − I‖_F),
    over the exits and the network's own classifier; the first norm is that of the whole B × C matrix, T_e = 1 + 3 · e / E
Source: the authors' code (Task-Oriented-Feature-Distillation); its soft cross-entropy was not published
Choice: `squared` multiplies the soft cross-entropy by T_e²; the authors' related code, which the default follows, does not
Choice: the teacher's exits are those of the method that trained it; by default it learns from cross-entropy alone
Choice: stages are paired from the deepest, and shallow ones of the student that have no partner get no exit
Fault: the original builds its optimiser again after the first batch, when its links exist, with another weight decay
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision, he_normal, soft_cross_entropy
from kdbench.method.connectors import paired, separable


def feature_loss(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sum over the classifiers of the L2 norm of the whole difference, neither squared nor averaged: it grows with √B.

    Args:
        features, targets: (B, C_i) for each classifier.
    """
    norms = [torch.linalg.vector_norm(x - target) for x, target in zip(features, targets, strict=True)]
    return torch.stack(norms).sum()


def orthogonality(weights: Sequence[Tensor]) -> Tensor:
    """Σ ‖W Wᵀ − I‖_F + ‖Wᵀ W − I‖_F over weights (C^t, C); of one that is not square it cannot be 0."""
    norms = [
        torch.linalg.vector_norm(x @ x.T - torch.eye(len(x), dtype=x.dtype, device=x.device))
        for weight in weights
        for x in (weight, weight.T)
    ]
    return torch.stack(norms).sum()


def soft_loss(logits: Tensor, target_logits: Tensor, temperature: float, squared: bool) -> Tensor:
    """Cross-entropy of softened logits (B, K) with the teacher's (B, K), batch mean; times T² if `squared`."""
    target = F.softmax(at_least_float32(target_logits) / temperature, dim=1)
    loss = soft_cross_entropy(at_least_float32(logits) / temperature, target)
    return temperature**2 * loss if squared else loss


class Exit(nn.Module):
    """A shallow classifier in float32: separable blocks that double the width, the average, a linear layer.

    Args:
        channels: of the stage map.
        blocks: number of blocks.
        classes: number of logits K.
    """

    def __init__(self, channels: int, blocks: int, classes: int):
        super().__init__()
        widths = [channels * 2**block for block in range(blocks + 1)]
        self.body = nn.Sequential(*(separable(one, other) for one, other in pairwise(widths)))
        self.fc = nn.Linear(widths[-1], classes)
        he_normal(self.body)

    def forward(self, stage: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and pooled feature (B, width) of a stage map (B, C_s, H_s, W_s)."""
        with full_precision(stage.device):
            feature = self.body(at_least_float32(stage)).mean(dim=(2, 3))
            return self.fc(feature), feature


def _outputs(exits: Iterable[nn.Module], stages: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Logits and feature of each exit; the deepest of the stages has none."""
    return [exit_(stage) for exit_, stage in zip(exits, stages, strict=False)]


class TOFD(Method):
    """Cross-entropy of all classifiers, and for each the teacher's logits and feature at the same exit.

    Args:
        alpha: α of `feature_loss`.
        beta: β of `orthogonality`.
        kd_weight: w of the soft cross-entropies, which are part of the method.
        temperature: T of the last epoch; it rises from 1 by the same amount in each.
        squared: multiply the soft cross-entropies by T².
    """

    needs_teacher = True

    alpha: float
    beta: float
    kd_weight: float
    temperature: float
    squared: bool

    def setup(self) -> None:
        theirs = self._teachers_exits()
        if not theirs:
            raise RunError(
                "tofd needs a teacher that was trained with exits: a backbone, which is then trained as Teaching.method says, "
                "or teacher=RUN with a run of deep_supervision, byot or tofd"
            )
        shapes = self.stage_shapes()
        places = paired(range(1, len(shapes)), theirs)
        self.first = len(shapes) - 1 - len(places)
        self.shallow = nn.ModuleList(
            Exit(shapes[stage - 1][0], len(shapes) - stage, self.info.classes) for stage, _ in places
        )
        classifiers = [*(exit_.get_submodule("fc") for exit_ in self.shallow), self.student.fc]
        targets = [*(exit_.get_submodule("fc") for _, exit_ in places), self.teacher.fc]
        self.links = nn.ModuleList(
            nn.Linear(cast(nn.Linear, ours).in_features, cast(nn.Linear, target).in_features, bias=False)
            for ours, target in zip(classifiers, targets, strict=True)
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch)
        own = [*_outputs(self.shallow, out.stages[self.first :]), (out.logits, out.pooled)]
        taught_exits = [*_outputs(self._teachers_exits(), taught.stages), (taught.logits, taught.pooled)][-len(own) :]
        temperature = 1 + (self.temperature - 1) * batch.epoch / max(1, self.info.epochs)
        ce = [self.cross_entropy(logits, batch.labels) for logits, _ in own]
        soft = [
            soft_loss(logits, target, temperature, self.squared)
            for (logits, _), (target, _) in zip(own, taught_exits, strict=True)
        ]
        with full_precision(batch.images.device):
            # A norm over all images of the batch is not a mean over them.
            features = [
                batch.share.gather(link(at_least_float32(x))) for link, (_, x) in zip(self.links, own, strict=True)
            ]
            targets = [batch.share.gather(at_least_float32(x)) for _, x in taught_exits]
            return {
                "ce": ce[-1],
                "exit_ce": torch.stack(ce[:-1]).sum(),
                "soft": self.kd_weight * torch.stack(soft).sum(),
                "feature": self.alpha * feature_loss(features, targets),
                "orthogonal": self.beta * orthogonality([cast(nn.Linear, link).weight for link in self.links]),
            }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.student(images, features=True).stages[self.first :]
        return {f"exit{number}": logits for number, (logits, _) in enumerate(_outputs(self.shallow, stages), 1)}

    def _teachers_exits(self) -> Sequence[nn.Module]:
        """The modules that lead from the teacher's shallow stages to logits and feature; none if it was trained without."""
        return tuple(getattr(self.teachers[0].method, "shallow", ()))
