"""Collaborative learning: branches that share all stages but the last learn from one another, and divide their gradient there.

Song and Chai, "Collaborative learning for deep neural networks", NeurIPS 2018.

Family: online
Loss: Σ_b [CE(z_b) + w · T² · KL(p_{−b} ‖ p_b)] over M branches, p_{−b} = softmax(mean_{j≠b} z_j / T) detached, with 1 / M of the
    gradient in the shared stages, w = exp(−5 · (1 − progress / ramp)²) until `ramp` and 1 from there
Source: the version in the code of OKDDip (train_one.py); no code of the authors was found
Choice: the student, the first branch, is the network that is kept.
Choice: branches are copies of the last stage; a tree that splits at several stages is not offered.
Choice: `detached` keeps the gradient out of the targets, as ONE does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method
from kdbench.method.branches import fork, last_stage, ramp_up
from kdbench.methods.ctkd import with_scaled_gradient
from kdbench.methods.dml import mutual_loss


class CLILR(Method):
    """Cross-entropies of all branches, and a divergence of each from the mean of the others' logits.

    Args:
        weight: of the divergences when it has risen.
        temperature: T.
        count: branches M, the student's own last stage included.
        ramp: share of the training over which the weight rises; 0: it does not.
        detached: whether the gradient is kept out of the targets.
    """

    weight: float
    temperature: float
    count: int
    ramp: float
    detached: bool

    def setup(self) -> None:
        last = last_stage("cl_ilr", self.student)
        self.branches = nn.ModuleList(self.student.fresh_stages(last) for _ in range(self.count - 1))

    def branch_logits(self, images: Tensor) -> list[Tensor]:
        """Logits (B, K) of each branch, the student's first; the shared stages get 1 / M of their gradient."""
        *shared, _ = self.student.stage_modules()
        x = self.student.start(images)
        for stage in shared:
            x = stage(x)
        x = with_scaled_gradient(x, 1 / self.count)
        return [self.student.run_from(len(shared), x).logits, *(branch(x).logits for branch in self.branches)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.branch_logits(batch.images)
        mutual = [mutual_loss(logits, b, self.temperature, "mean", self.detached) for b in range(self.count)]
        return {
            "ce": torch.stack([self.cross_entropy(z, batch.labels) for z in logits]).sum(),
            "mutual": self.weight * ramp_up(batch.progress, self.ramp) * torch.stack(mutual).sum(),
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        others = fork(self.student, self.branches, images)[1:]
        return {f"branch{number}": out.logits for number, out in enumerate(others, start=2)}
