"""Deep mutual learning: networks that start differently learn together, each from the others.

Zhang, Xiang, Hospedales and Lu, "Deep mutual learning", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdbench.method import Batch, Method, distillation


def mutual_loss(logits: Sequence[Tensor], number: int, temperature: float) -> Tensor:
    """Mean over the other networks j of T² · KL(p_j ‖ p_i) for network i = `number`; p_j carries no gradient.

    Args:
        logits: (B, K) of each network.
    """
    others = [z.detach() for other, z in enumerate(logits) if other != number]
    return torch.stack([distillation(logits[number], z, temperature) for z in others]).mean()


class DML(Method):
    """The sum over all networks of cross-entropy and `mutual_loss`. The student is the network that is kept.

    Args:
        cohort: the architecture of each network besides the student; None: the student's.
    """

    mutual_weight: float
    temperature: float
    cohort: tuple[str | None, ...]

    def setup(self) -> None:
        for name in self.cohort:
            self.add_peer(name)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = [network(batch.images) for network in self.networks()]
        ce = [self.cross_entropy(z, batch.labels) for z in logits]
        mutual = [mutual_loss(logits, number, self.temperature) for number in range(len(logits))]
        return {"ce": torch.stack(ce).sum(), "mutual": self.mutual_weight * torch.stack(mutual).sum()}
