"""DCM: two networks, each with further classifiers, and every classifier of one teaches every classifier of the other.

Yao and Sun, "Knowledge transfer via dense cross-layer mutual-distillation", ECCV 2020.

Family: online
Base: dks
Loss: Σ CE of all classifiers + w · Σ_{i,j} (KL_T(v_j ‖ z_i) + KL_T(z_i ‖ v_j)), KL_T(t ‖ z) = T² · KL(softmax(t / T) ‖
    softmax(z / T)), t detached, z and v the classifiers of the two networks, w = T = 1
Source: the authors' code (wrn/main.py, KL_divergence.py)
Choice: classifiers of one network do not teach one another, as in the authors' code
Choice: `branches` is 2 by default, after each of the two stages before the deepest, as in the authors' networks, and a branch is a
    newly drawn copy of the stages that follow; theirs are longer or wider (see `dks`)
Choice: `peer` is None by default, a second network of the student's architecture; the paper pairs unequal networks as well
Choice: the authors add 1e-8 to probabilities before the logarithm; logarithms of a softmax do not need it
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from kdbench.method import Batch, distillation
from kdbench.method.exits import branch_logits, numbered
from kdbench.methods.dks import DKS


def crossed(logits: Sequence[Tensor], others: Sequence[Tensor], temperature: float) -> Tensor:
    """T² · KL both ways, summed over all pairs of a classifier of one network and one of the other, batch mean.

    Args:
        logits, others: (B, K) of each classifier of the two networks; each has no gradient where it is the target.
    """
    pairs = list(product(logits, others))
    both = [*pairs, *((other, z) for z, other in pairs)]
    return torch.stack([distillation(z, target.detach(), temperature) for z, target in both]).sum()


class DCM(DKS):  # type: ignore[misc]  # mypy does not look into methods by their module
    """Cross-entropy of all classifiers of the student and of a peer, and `crossed` of the two; the peer is dropped after training.

    Args:
        peer: architecture of the second network; None: the student's.
    """

    peer: str | None

    def setup(self) -> None:
        super().setup()
        self.peer_further = self._fresh_branches(self.add_peer(self.peer))

    def _classifiers(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, K) of each classifier of the student and of the peer; the main one is the last of each."""
        both = []
        for network, further in zip(self.networks(), (self.further, self.peer_further), strict=True):
            out = network(images, features=True)
            both.append([*branch_logits(further, out.stages), out.logits])
        own, other = both
        return own, other

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        own, other = self._classifiers(batch.images)
        *branches, main = (self.cross_entropy(z, batch.labels) for z in own)
        return {
            "ce": main,
            "branch_ce": torch.stack(branches).sum(),
            "peer_ce": torch.stack([self.cross_entropy(z, batch.labels) for z in other]).sum(),
            "crossed": self.weight * crossed(own, other, self.temperature),
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        (*own, _), (*other, peer) = self._classifiers(images)
        return {**numbered("branch", own), "peer1": peer, **numbered("peer1_branch", other)}
