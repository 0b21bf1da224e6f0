"""Overhaul of feature distillation: maps before the last ReLU of each stage, with a margin for what the teacher suppresses.

Heo, Kim, Yun, Park, Kwak and Choi, "A comprehensive overhaul of feature distillation", ICCV 2019.

Family: feature
Loss: CE + 1/(1000·B) · Σ_s 2^(s − S) · Σ [P > P̃ or P̃ > 0] (P − P̃)², P̃ = max(P_s^t, m_c), P = BN(conv(P_s))
Source: overhaul-distillation (CIFAR-100/distiller.py); resolutions as in mdistiller
Choice: the teacher is in evaluation mode; OFD.batch_statistics=True normalises it with the statistics of the batch, as the authors
    intend, and leaves its running statistics as they are.
Choice: the margin of a residual network comes from the last batch normalisation of the last block, although the shortcut is added
    after it; all sources do so.
Choice: the margin of a channel whose scale is 0 is min(shift, 0); the authors' formula divides by the scale.
Choice: stages are paired from the deepest. Of unequal resolutions the larger map is averaged before the connector and the margin.
Fault: the authors' teacher moves its running statistics all through the training of the student.
Fault: mdistiller takes the margins of the wrong stages when the teacher has more stages than the student.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdbench.method import Backbone, Batch, Method, RunError, at_least_float32, kd_term
from kdbench.method.connectors import ConvBN, check_preactivations, equal_resolution, paired


def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Mean of the negative responses of each channel, (C,), if they are normal with the scale and shift of the last BN.

    Args:
        weight, bias: (C,) of the batch normalisation.
    """
    spread = weight.abs().clamp(min=torch.finfo(weight.dtype).tiny)
    below = torch.special.ndtr(-bias / spread)
    density = torch.exp(-(bias / spread).square() / 2) / math.sqrt(2 * math.pi)
    mean = torch.where(below > 0.001, bias - spread * density / below.clamp(min=0.001), -3 * spread)
    return torch.where(weight == 0, bias.clamp(max=0), mean)


def ofd_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], margins: Sequence[Tensor]) -> Tensor:
    """1/1000 · Σ_s 2^(s − S) · squared distances summed over a map, mean of the batch.

    Where both are below the margin there is no distance.

    Args:
        maps, targets: pre-activations of student (connected) and teacher, (B, C_s, H_s, W_s) for each stage, shallowest first.
        margins: (C_s,) for each stage.
    """
    terms = []
    for steps_to_deepest, (x, target, low) in enumerate(zip(*map(reversed, (maps, targets, margins)), strict=True)):
        x, target = at_least_float32(x), torch.maximum(at_least_float32(target), low[:, None, None])
        distance = (x - target).square() * ((x > target) | (target > 0))
        terms.append(distance.sum() / len(x) / 2**steps_to_deepest)
    return torch.stack(terms).sum() / 1000


class OFD(Method):
    """Cross-entropy and `ofd_loss` of the pre-activations of all stages.

    Args:
        weight: of `ofd_loss`.
        batch_statistics: normalise the teacher with the statistics of the batch.
        kd_weight, temperature: of distillation.
    """

    needs_teacher = True

    weight: float
    batch_statistics: bool
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        check_preactivations("ofd", self.student, self.teacher)
        if type(self.teacher).last_bn is Backbone.last_bn:
            raise RunError(
                f"ofd needs the last batch normalisation of each stage of the teacher, which {type(self.teacher).__name__} "
                "does not offer; use another teacher, such as a resnet"
            )
        theirs = self.stage_shapes(self.teacher)
        pairs = paired(self.stage_shapes(), theirs)
        self.connectors = nn.ModuleList(ConvBN(ours[0], target[0], wide_normal=True) for ours, target in pairs)
        for number in range(len(pairs)):
            bn = self.teacher.last_bn(len(theirs) - len(pairs) + number)
            self.register_buffer(f"margin_{number}", margin(bn.weight.detach(), bn.bias.detach()))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=("preactivations",))
        taught = self.teach(batch, "preactivations", batch_statistics=self.batch_statistics)
        maps, targets = [], []
        pairs = paired(out.preactivations, taught.preactivations)
        for connector, pair in zip(self.connectors, pairs, strict=True):
            x, target = equal_resolution(*pair)
            maps.append(connector(x))
            targets.append(target)
        margins = [self.get_buffer(f"margin_{number}") for number in range(len(pairs))]
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "ofd": self.weight * ofd_loss(maps, targets, margins),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
