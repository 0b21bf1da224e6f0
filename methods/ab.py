"""Activation boundaries: before it learns the classes, the student learns which of the teacher's neurons are active.

Heo, Lee, Yun and Choi, "Knowledge transfer via distillation of activation boundaries formed by hidden neurons", AAAI 2019.

Family: feature
Loss: phase 1: 3/1000 · 1/B · Σ_s 2^(s − S) · Σ [P > −m, P^t ≤ 0] (P + m)² + [P ≤ m, P^t > 0] (P − m)²; phase 2: CE
Source: RepDistiller (distiller_zoo/AB.py, Connector and train/train_student.py)
Choice: phase 2 trains on cross-entropy, as RepDistiller does; AB.objective='kl' is the authors' second phase on CIFAR-10, the KL
    divergence from the teacher alone, without T² (their AB.temperature is 3).
Choice: phase 1 is a share of the budget; AB.on_top=True spends its images in addition, as RepDistiller does.
Choice: stages are paired from the deepest, and 2^(s − S) counts from there. Where FitNets' convolution does not reach the teacher's
    resolution, the teacher's pre-activations are averaged to the student's.
Fault: RepDistiller leaves what phase 1 does not train in evaluation mode, so that the last batch normalisation of a WRN student
    passes its map through unchanged; here it normalises with the statistics of the batch, as in phase 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, Phase, at_least_float32, kd_term, softened_kl
from kdbench.method.connectors import Regressor, check_preactivations, equal_resolution, paired


def boundary_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], margin: float) -> Tensor:
    """3/1000 · Σ_s 2^(s − S) · squared distances to the right side of the margin, summed over a map, mean of the batch.

    Args:
        maps, targets: pre-activations of student and teacher, (B, C_s, H_s, W_s) for each stage, shallowest first. A
            teacher's neuron at exactly 0 is not active.
    """
    terms = []
    for steps_to_deepest, (x, target) in enumerate(zip(reversed(maps), reversed(targets), strict=True)):
        x, active = at_least_float32(x), target > 0
        off = (x + margin).square() * ((x > -margin) & ~active)
        on = (x - margin).square() * ((x <= margin) & active)
        terms.append((off + on).sum() / len(x) / 2**steps_to_deepest)
    return 3 / 1000 * torch.stack(terms).sum()


class AB(Method):
    """Phase 1 trains the student without its classifier on `boundary_loss`, phase 2 the student on the classes.

    Args:
        margin: of the pre-activations.
        share: of the budget that phase 1 gets.
        on_top: give phase 1 its images in addition to the budget.
        objective: of phase 2, cross-entropy or the KL divergence from the teacher alone.
        kd_weight: of distillation in phase 2.
        temperature: of distillation, and of the KL divergence.
    """

    needs_teacher = True

    margin: float
    share: float
    on_top: bool
    objective: Literal["ce", "kl"]
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        check_preactivations("ab", self.student, self.teacher)
        pairs = paired(self.stage_shapes(), self.stage_shapes(self.teacher))
        self.connectors = nn.ModuleList(
            nn.Identity() if ours == theirs else Regressor(ours, theirs, relu=False) for ours, theirs in pairs
        )

    def phases(self) -> Sequence[Phase]:
        connectors = {*self.connectors.parameters()}
        first = [*self.student.body().parameters(), *self.connectors.parameters()]
        second = [p for p in self.parameters() if p not in connectors]
        return (
            Phase("boundaries", self.share, self.boundaries, trains=first, rate="constant", on_top=self.on_top),
            Phase("classes", trains=second),
        )

    def boundaries(self, batch: Batch) -> dict[str, Tensor]:
        ours = self.student(batch.images, features=("preactivations",)).preactivations
        theirs = self.teach(batch, "preactivations").preactivations
        maps, targets = [], []
        for connector, (x, target) in zip(self.connectors, paired(ours, theirs), strict=True):
            x, target = equal_resolution(connector(x), target)
            maps.append(x)
            targets.append(target)
        return {"ab": boundary_loss(maps, targets, self.margin)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        if self.objective == "ce" and not self.kd_weight:
            return {"ce": self.cross_entropy(logits, batch.labels)}
        target = self.teach(batch, "logits").logits
        if self.objective == "kl":
            term = {"kl": softened_kl(logits, target, self.temperature)}
        else:
            term = {"ce": self.cross_entropy(logits, batch.labels)}
        return term | kd_term(logits, target, self.kd_weight, self.temperature)
