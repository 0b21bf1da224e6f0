"""Deep mutual learning: networks that start differently learn together, each from the others.

Zhang, Xiang, Hospedales and Lu, "Deep mutual learning", CVPR 2018.

Family: online
Loss: Σ_i [CE(z_i) + w / (M − 1) · Σ_{j≠i} T² · KL(p_j ‖ p_i)] over M networks, with p_j = softmax(z_j / T) detached
Source: a re-implementation in PyTorch (chxy95/Deep-Mutual-Learning, trainer.py); the authors' code is for person re-identification
Choice: the student is the network that is kept, decided before training, and not the best of the networks on the test set.
Choice: the networks take one step together, as in the re-implementation. The authors' code updates them in turn, with targets that
    are computed again after each, for which each image would have to pass through the student more than once; it is not offered.
Choice: `target` is "each": a divergence from each other network. The version in the code of OKDDip has one divergence from the mean
    of the others' logits, at T = 3, with gradient: DML.target='mean' DML.temperature=3.0 DML.detached=False.
Choice: `detached` keeps the gradient out of the targets. Without it a network is pulled to where others imitate it easily.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kdbench.method import Batch, Method, RunError, distillation


def mutual_loss(
    logits: Sequence[Tensor],
    number: int,
    temperature: float,
    target: Literal["each", "mean"] = "each",
    detached: bool = True,
) -> Tensor:
    """Mean over the other networks j of T² · KL(p_j ‖ p_i) for network i = `number`.

    Args:
        logits: (B, K) of each network.
        target: "mean": one divergence from the mean of the other networks' logits.
        detached: p_j carries no gradient.
    """
    others = [z.detach() if detached else z for other, z in enumerate(logits) if other != number]
    if target == "mean":
        others = [torch.stack(others).mean(dim=0)]
    return torch.stack([distillation(logits[number], z, temperature) for z in others]).mean()


class DML(Method):
    """The sum over all networks of cross-entropy and `mutual_loss`. The student is the network that is kept.

    Args:
        mutual_weight: w.
        temperature: T.
        cohort: the architecture of each network besides the student; None: the student's.
        target: the others one by one, or the mean of their logits.
        detached: whether the gradient is kept out of the targets.
    """

    mutual_weight: float
    temperature: float
    cohort: tuple[str | None, ...]
    target: Literal["each", "mean"]
    detached: bool

    def setup(self) -> None:
        if not self.cohort:
            raise RunError("dml needs at least one network besides the student: DML.cohort is empty")
        for name in self.cohort:
            self.add_peer(name)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = [network(batch.images) for network in self.networks()]
        ce = [self.cross_entropy(z, batch.labels) for z in logits]
        mutual = [
            mutual_loss(logits, number, self.temperature, self.target, self.detached) for number in range(len(logits))
        ]
        return {"ce": torch.stack(ce).sum(), "mutual": self.mutual_weight * torch.stack(mutual).sum()}
