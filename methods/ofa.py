"""OFA: every stage of the student classifies through a branch of its own, and only logits are compared.

Hao, Guo, Han, Tang, Hu, Wang and Xu, "One-for-all: bridge the gap between heterogeneous architectures in knowledge
distillation", NeurIPS 2023.

Family: feature
Loss: CE + w_z · ℓ(z) + w_s · Σ_s ℓ(z_s), ℓ(u) = −mean_b Σ_c ((p_c^t + [c = y])^γ − [c = y]) · ln softmax(u/τ)_c,
    p^t = softmax(z^t/τ), z_s the logits of the branch on F_s
Source: the authors' code (OFAKD), its convolutional branches
Choice: `gamma` is 1, as for Swin-T → ResNet-18 on CIFAR-100, where ℓ is the soft cross-entropy; the authors choose 1 to 1.5
    for each pair (1.5 for DeiT-T → ResNet-18 on ImageNet), one number for all classifiers or one for each
Choice: a branch halves the resolution S − s times, S the student's stages; the original counts 4 − s, for networks of four
Choice: branches are convolutional for every student; the authors' token branches for transformers are left out
Choice: where labels are shares of classes, y is the class with the largest share
Fault: the original takes the logarithm of a softmax, which is −∞ where a probability underflows
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import (
    Batch,
    Method,
    RunError,
    at_least_float32,
    full_precision,
    he_normal,
    kd_term,
    soft_cross_entropy,
)  # fmt: skip
from kdbench.method.connectors import separable


def ofa_loss(logits: Tensor, target_logits: Tensor, labels: Tensor, gamma: float, temperature: float) -> Tensor:
    """Cross-entropy with the teacher's distribution, in which the true class is enhanced by γ; batch mean, without a factor T².

    With γ = 1 it is the soft cross-entropy; else what it is compared with is not a distribution.

    Args:
        logits, target_logits: (B, K).
        labels: (B,) classes, or (B, K) shares of the classes, of which the largest counts.
    """
    classes = labels if labels.dim() == 1 else labels.argmax(dim=1)
    target = F.softmax(at_least_float32(target_logits) / temperature, dim=1)
    own = F.one_hot(classes, target.shape[1]).to(target.dtype)
    return soft_cross_entropy(at_least_float32(logits) / temperature, (target + own) ** gamma - own)


class Branch(nn.Module):
    """A classifier of a stage map: separable blocks that halve the resolution, the average, and a linear layer; in float32.

    Args:
        channels: of the map.
        blocks: number of blocks; each doubles the width, and the last one leads to `width`. With none, a 1×1 convolution does.
        width: of the averaged feature.
        classes: number of logits K.
    """

    def __init__(self, channels: int, blocks: int, width: int, classes: int):
        super().__init__()
        widths = [*(channels * 2**block for block in range(blocks)), width]
        separated = [separable(one, other) for one, other in pairwise(widths)]
        self.body = nn.Sequential(*separated) if blocks else nn.Conv2d(channels, width, 1)
        self.fc = nn.Linear(width, classes)
        he_normal(self.body)
        nn.init.trunc_normal_(self.fc.weight, std=0.02)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of a map (B, C, H, W)."""
        with full_precision(x.device):
            logits: Tensor = self.fc(self.body(at_least_float32(x)).mean(dim=(2, 3)))
            return logits


class OFA(Method):
    """Cross-entropy, and `ofa_loss` of the student's logits and of each stage's branch, which is dropped after training.

    Args:
        logit_weight, stage_weight: of the loss of the student's own logits, and of the sum over the branches.
        gamma: γ of all classifiers, or of each: the stages from the shallowest, then the student's own.
        ofa_temperature: τ of the loss.
        kd_weight, temperature: of the KD term that comes in addition; none at weight 0.
    """

    needs_teacher = True

    logit_weight: float
    stage_weight: float
    gamma: tuple[float, ...]
    ofa_temperature: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        shapes = self.stage_shapes()
        if len(self.gamma) not in (1, len(shapes) + 1):
            raise RunError(
                f"ofa needs one value of OFA.gamma, or {len(shapes) + 1}, for {len(shapes)} stages and the logits; "
                f"it has {len(self.gamma)}"
            )
        width = max(self.student.fc.in_features, self.teacher.fc.in_features)
        self.branches = nn.ModuleList(
            Branch(channels, len(shapes) - stage, width, self.info.classes)
            for stage, (channels, *_) in enumerate(shapes, start=1)
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, target = self.student(batch.images, features=True), self.teach(batch, "logits").logits
        of_stages = [branch(x) for branch, x in zip(self.branches, out.stages, strict=True)]
        gammas = self.gamma * (len(of_stages) + 1) if len(self.gamma) == 1 else self.gamma
        *stages, own = [
            ofa_loss(logits, target, batch.labels, gamma, self.ofa_temperature)
            for logits, gamma in zip([*of_stages, out.logits], gammas, strict=True)
        ]
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "ofa": self.logit_weight * own,
            "stages": self.stage_weight * torch.stack(stages).sum(),
            **kd_term(out.logits, target, self.kd_weight, self.temperature),
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.student(images, features=True).stages
        return {
            f"exit{number}": branch(x) for number, (branch, x) in enumerate(zip(self.branches, stages, strict=True), 1)
        }
