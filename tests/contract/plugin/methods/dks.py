"""Deeply-supervised knowledge synergy: branches from earlier stages and the main classifier all teach one another.

Sun, Yao, Zhou and Zhao, "Deeply-supervised knowledge synergy", CVPR 2019. A branch is a newly drawn copy of the later stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, distillation


def synergy(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """T² · KL(softmax(z_j/T) ‖ softmax(z_i/T)) summed over all ordered pairs, batch mean; z_j has no gradient.

    Args:
        logits: (B, K) of each classifier.
    """
    return torch.stack([distillation(z, other.detach(), temperature) for z, other in permutations(logits, 2)]).sum()


class DKS(Method):
    """Cross-entropy of the main classifier and of all branches, and `synergy` of all of them.

    Args:
        weight: of the synergy.
        temperature: T; the authors' is 1.
    """

    weight: float
    temperature: float

    def setup(self) -> None:
        count = len(self.student.stage_modules())
        self.branches = nn.ModuleList(self.student.fresh_stages(first) for first in range(1, count))

    def branch_logits(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Logits (B, K) of each branch, from the maps of all stages, shallowest first."""
        return [branch(stage).logits for branch, stage in zip(self.branches, stages[:-1], strict=True)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        branches = self.branch_logits(out.stages)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "branch_ce": torch.stack([self.cross_entropy(z, batch.labels) for z in branches]).sum(),
            "synergy": self.weight * synergy([*branches, out.logits], self.temperature),
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.branch_logits(self.student(images, features=True).stages)
        return {f"branch{number}": z for number, z in enumerate(logits, start=1)}
