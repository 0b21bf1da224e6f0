"""Be your own teacher: shallow exits learn the deepest classifier's logits and feature.

Zhang, Song, Gao, Chen, Bao and Ma, "Be your own teacher: improve the performance of convolutional neural networks via
self distillation", ICCV 2019.

Family: self
Loss: (1 − α) · Σ CE of all classifiers + α · T² · Σ soft CE(exit, deepest; T) + β · Σ hint(exit, deepest)
Source: the authors' code
Choice: `hint_reduction` is "sum" over the batch, to which the authors' β belongs; "mean" needs a β of its own
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision, he_normal, soft_cross_entropy
from kdbench.method.exits import numbered


def logit_loss(exit_logits: Tensor, deepest_logits: Tensor, temperature: float) -> Tensor:
    """T² · soft cross-entropy of an exit with the softened deepest classifier, batch mean (loss source 2).

    Args:
        exit_logits, deepest_logits: (B, K); the deepest is detached.
    """
    target = F.softmax(at_least_float32(deepest_logits).detach() / temperature, dim=1)
    return temperature**2 * soft_cross_entropy(at_least_float32(exit_logits) / temperature, target)


def hint_loss(exit_feature: Tensor, deepest_feature: Tensor, reduction: Literal["sum", "mean"]) -> Tensor:
    """Squared difference where either value is positive (loss source 3), summed over the channels.

    Args:
        exit_feature, deepest_feature: (B, C), globally pooled, as in the authors' code; the deepest is detached.
        reduction: "sum" over the batch, as in the authors' code, or "mean".
    """
    target = deepest_feature.detach()
    active = (exit_feature > 0) | (target > 0)
    total = ((exit_feature - target).square() * active).sum()
    return total if reduction == "sum" else total / len(exit_feature)


class Exit(nn.Module):
    """A shallow classifier: bottleneck to the resolution of the deepest map, global pooling, linear layer.

    Args:
        shape, deepest: (channels, height, width) of its own stage map and of the deepest.
        width: of the pooled feature, the network's own.
        classes: number of logits K.
    """

    def __init__(self, shape: tuple[int, int, int], deepest: tuple[int, int, int], width: int, classes: int):
        super().__init__()
        squeezed = max(1, width // 4)
        # What is left of the down-sampling; 1 where the stages have the same resolution.
        stride = (max(1, shape[1] // deepest[1]), max(1, shape[2] // deepest[2]))
        self.bottleneck = nn.Sequential(
            _conv(shape[0], squeezed, (1, 1)), _conv(squeezed, squeezed, stride), _conv(squeezed, width, (1, 1))
        )
        self.fc = nn.Linear(width, classes)
        he_normal(self.bottleneck)

    def forward(self, stage: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and pooled feature (B, width) of a stage map (B, C_s, H_s, W_s)."""
        x = self.bottleneck(stage)
        with full_precision(x.device):
            feature = at_least_float32(x).mean(dim=(2, 3))
            return self.fc(feature), feature


def _conv(in_width: int, width: int, size: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_width, width, size, stride=size, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


class BYOT(Method):
    """(1 − α) · Σ cross-entropy of all classifiers + α · Σ logit loss + β · Σ hint loss of the shallow exits.

    Args:
        alpha: α.
        beta: β; it belongs to `hint_reduction`.
        temperature: T of the logit loss.
        hint_reduction: over the batch; with "sum" the hint grows with the batch size.
    """

    alpha: float
    beta: float
    temperature: float
    hint_reduction: Literal["sum", "mean"]

    def setup(self) -> None:
        *shallow, deepest = self.stage_shapes()
        width = self.student.fc.in_features
        self.shallow = nn.ModuleList(Exit(shape, deepest, width, self.info.classes) for shape in shallow)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        ce, logit, hint = [], [], []
        for shallow, stage in zip(self.shallow, out.stages, strict=False):
            logits, feature = shallow(stage)
            ce.append(self.cross_entropy(logits, batch.labels))
            logit.append(logit_loss(logits, out.logits, self.temperature))
            hint.append(hint_loss(feature, out.pooled, self.hint_reduction))
        if self.hint_reduction == "sum":
            hint = [batch.share.summed(term) for term in hint]
        return {
            "ce": (1 - self.alpha) * self.cross_entropy(out.logits, batch.labels),
            "exit_ce": (1 - self.alpha) * torch.stack(ce).sum(),
            "exit_logit": self.alpha * torch.stack(logit).sum(),
            "exit_hint": self.beta * torch.stack(hint).sum(),
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.student(images, features=True).stages
        return numbered("exit", (shallow(stage)[0] for shallow, stage in zip(self.shallow, stages, strict=False)))
