"""OKDDip: peers learn from mixtures of all peers, weighted by attention between their features, and a leader from their mean.

Chen, Mei, Wang, Feng and Chen, "Online knowledge distillation with diverse peers", AAAI 2020.

Family: online
Loss: Σ_a CE(z_a) + CE(z_L) + w · [Σ_a T² · KL(t_a ‖ z_a) + T² · KL(mean_a z_a ‖ z_L)] over the peers a, t_a = Σ_b A_ab · z_b,
    A_ab = softmax_b(q(g_a) · k(g_b)), w = exp(−5 · (1 − progress / ramp)²) until `ramp` and 1 from there
Source: the authors' code (OKDDip, train_GL.py)
Choice: the student is the leader, which is kept; the peers are fresh copies of its last stage. The variant of whole networks is not
    offered.
Choice: targets have a gradient, as in the authors' code; without it, queries and keys would have none. `leader_detached` keeps it
    out of the leader's target.
Choice: `floor` is 0. The authors' code adds 1e-7 to the probabilities of the targets.
Choice: the weight w rises with each step, over the same share of a run of any length; the authors' rises by epochs, over 80 of 300.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision
from kdbench.method.branches import floored_distillation, fork, last_stage, ramp_up


def attention(queries: Tensor, keys: Tensor) -> Tensor:
    """How much peer a takes from peer b for each image, (B, P, P), summing to 1 over b; queries and keys (P, B, D)."""
    return F.softmax(torch.einsum("abd,cbd->bac", queries, keys), dim=2)


def peer_targets(logits: Tensor, weights: Tensor) -> Tensor:
    """Σ_b A_ab · z_b of each peer, (P, B, K); logits (P, B, K), weights A (B, P, P)."""
    return torch.einsum("bac,cbk->abk", weights, logits)


def peer_loss(logits: Tensor, weights: Tensor, temperature: float, floor: float = 0.0) -> Tensor:
    """Sum over the peers of T² · KL(t_a ‖ z_a), with gradient through the targets; logits (P, B, K), weights (B, P, P)."""
    targets = peer_targets(logits, weights)
    pairs = zip(logits, targets, strict=True)
    return torch.stack([floored_distillation(z, target, temperature, floor) for z, target in pairs]).sum()


class OKDDip(Method):
    """Cross-entropies of the leader and of all peers, `peer_loss`, and a divergence of the leader from the peers' mean.

    Args:
        weight: of the divergences when it has risen.
        temperature: T.
        count: peers, without the leader; at least two.
        ramp: share of the training over which the weight rises; 0: it does not.
        leader_detached: whether the gradient is kept out of the leader's target.
        floor: added to the probabilities of the targets.
    """

    weight: float
    temperature: float
    count: int
    ramp: float
    leader_detached: bool
    floor: float

    def setup(self) -> None:
        if self.count < 2:
            raise RunError(f"okddip needs at least two peers; OKDDip.count is {self.count}")
        last = last_stage("okddip", self.student)
        self.branches = nn.ModuleList(self.student.fresh_stages(last) for _ in range(self.count))
        width = self.student.fc.in_features
        self.query, self.key = (nn.Linear(width, max(1, width // 8), bias=False) for _ in range(2))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        leader, *peers = fork(self.student, self.branches, batch.images)
        logits = at_least_float32(torch.stack([peer.logits for peer in peers]))
        with full_precision(logits.device):
            features = at_least_float32(torch.stack([peer.pooled for peer in peers]))
            weights = attention(self.query(features), self.key(features))
            of_peers = peer_loss(logits, weights, self.temperature, self.floor)
            mean = logits.mean(dim=0)
            target = mean.detach() if self.leader_detached else mean
            of_leader = floored_distillation(leader.logits, target, self.temperature, self.floor)
        weight = self.weight * ramp_up(batch.progress, self.ramp)
        return {
            "ce": self.cross_entropy(leader.logits, batch.labels),
            "peer_ce": torch.stack([self.cross_entropy(z, batch.labels) for z in logits]).sum(),
            "peer_kd": weight * of_peers,
            "kd": weight * of_leader,
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        peers = fork(self.student, self.branches, images)[1:]
        return {f"branch{number}": out.logits for number, out in enumerate(peers, start=1)}
