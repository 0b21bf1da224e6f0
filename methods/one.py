"""ONE: branches that share all stages but the last learn from their own ensemble, whose weights a gate gives for each image.

Lan, Zhu and Gong, "Knowledge distillation by on-the-fly native ensemble", NeurIPS 2018.

Family: online
Loss: Σ_b CE(z_b) + CE(z_e) + w · Σ_b T² · KL(p_e ‖ p_b), z_e = Σ_b g_b · z_b, g = softmax(ReLU(BN(Linear(average of F_{S−1})))),
    p_e detached, w = exp(−5 · (1 − progress / ramp)²) until `ramp` and 1 from there
Source: the authors' code (ONE_NeurIPS2018, cifar_one.py)
Choice: the student, the first branch, is the network that is kept; the ensemble of the gate is shown as the exit "gated".
Choice: the weight w rises with each step, over the same share of a run of any length; the authors' rises by epochs, over 80 of 300.
Choice: `floor` is 0. The authors' code adds 1e-7 to the probabilities of the target, which changes the loss by a factor of 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Features, Method, at_least_float32, full_precision
from kdbench.method.branches import floored_distillation, fork, last_stage, ramp_up


def gated(logits: Sequence[Tensor], gate: Tensor) -> Tensor:
    """Σ_b gate_b · z_b of each image.

    Args:
        logits: (B, K) of each of M branches.
        gate: (B, M).
    """
    return (torch.stack(list(logits), dim=1) * gate.unsqueeze(2)).sum(dim=1)


def ensemble_loss(logits: Sequence[Tensor], ensemble: Tensor, temperature: float, floor: float = 0.0) -> Tensor:
    """Sum over the branches of T² · KL(p_e ‖ p_b); the ensemble carries no gradient.

    Args:
        logits: (B, K) of each branch.
        ensemble: logits (B, K).
        floor: added to the probabilities of the ensemble.
    """
    return torch.stack([floored_distillation(z, ensemble.detach(), temperature, floor) for z in logits]).sum()


class Gate(nn.Sequential):
    """Weights of the branches for each image: linear layer, batch normalisation, ReLU, softmax.

    Args:
        width: of the pooled map before the branches.
        branches: their number M.
    """

    def __init__(self, width: int, branches: int):
        super().__init__(nn.Linear(width, branches), nn.BatchNorm1d(branches), nn.ReLU(), nn.Softmax(dim=1))


class ONE(Method):
    """Cross-entropies of all branches and of their gated ensemble, and `ensemble_loss`. The student is the first branch.

    Args:
        weight: of the ensemble loss when it has risen.
        temperature: T.
        count: branches, the student's own last stage included.
        ramp: share of the training over which the weight rises; 0: it does not.
        floor: added to the probabilities of the target.
    """

    weight: float
    temperature: float
    count: int
    ramp: float
    floor: float

    def setup(self) -> None:
        last = last_stage("one", self.student)
        self.branches = nn.ModuleList(self.student.fresh_stages(last) for _ in range(self.count - 1))
        self.gate = Gate(self.stage_shapes()[last - 1][0], self.count)

    def ensemble(self, out: Sequence[Features]) -> Tensor:
        """Logits (B, K) of the gated ensemble, from the features of all branches, the student's first."""
        shared = out[0].stages[-2]
        with full_precision(shared.device):
            return gated([each.logits for each in out], self.gate(at_least_float32(shared).mean(dim=(2, 3))))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = fork(self.student, self.branches, batch.images)
        logits, ensemble = [each.logits for each in out], self.ensemble(out)
        weight = self.weight * ramp_up(batch.progress, self.ramp)
        return {
            "ce": torch.stack([self.cross_entropy(z, batch.labels) for z in logits]).sum(),
            "ensemble_ce": self.cross_entropy(ensemble, batch.labels),
            "kd": weight * ensemble_loss(logits, ensemble, self.temperature, self.floor),
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        own, *others = fork(self.student, self.branches, images)
        named = {f"branch{number}": out.logits for number, out in enumerate(others, start=2)}
        return {**named, "gated": self.ensemble([own, *others])}
