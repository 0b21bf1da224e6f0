"""MCL: networks that learn together contrast the images in their own embeddings and in one another's.

Yang, An, Cai and Xu, "Mutual contrastive learning for visual representation learning", AAAI 2022.

Family: online
Loss: Σ_i CE(z_i) + a · Σ_i C(S_ii) + b · Σ_{i≠j} KL_T(S_jj → S_ii) + c · Σ_{i≠j} C(S_ij) + d · Σ_{i≠j} KL_T(S_ji → S_ij) over M
    networks, S_ij = v_i v_jᵀ / τ, v_i the normalised embeddings of the batch in network i; C(S): −mean over an image's positives of
    ln softmax of its row of S without itself; KL_T(t → s) = T² · KL(softmax(t / T) ‖ softmax(s / T)) of rows, t detached
Source: the authors' code (winycg/MCL, losses/cifar_sup_mcl_loss.py)
Choice: the student is the network that is kept, decided before training.
Choice: each anchor comes with one other image of its class, as in the authors' code. Both are in the cross-entropy and count
    against the budget. The contrast is over the whole batch, on any number of GPUs.
Choice: `kd_weight` is 0. Above it each network also learns from the mean of all logits, an option of the authors' code, which
    with more than two networks teaches the last alone (MCL.kd_networks='last').
Choice: the diagonal stays in the rows of the divergences, as in the authors' code. That of S_ii is always 1 / τ.
Fault: an image without a positive gives 0 / 0 in the authors' code; here it counts as 0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdbench.method import (
    Batch,
    ClassIndex,
    Method,
    RunError,
    Streams,
    at_least_float32,
    distillation,
    full_precision,
)
from kdbench.method.connectors import normalised
from kdbench.method.losses import supervised_contrast


def mutual_contrast(
    embeddings: Sequence[Tensor], labels: Tensor, contrast_temperature: float, temperature: float
) -> dict[str, Tensor]:
    """The four sums of the loss by name, without their weights: "vcl", "soft_vcl", "icl" and "soft_icl".

    Args:
        embeddings: (B, D) of the whole batch in each of at least two networks, of length 1.
        labels: (B,).
        contrast_temperature: τ.
        temperature: T.
    """
    numbers = range(len(embeddings))
    pairs = [(i, j) for i in numbers for j in numbers if i != j]
    s = {(i, j): embeddings[i] @ embeddings[j].mT / contrast_temperature for i in numbers for j in numbers}
    terms = {
        "vcl": [supervised_contrast(s[i, i], labels) for i in numbers],
        "soft_vcl": [distillation(s[i, i], s[j, j].detach(), temperature) for i, j in pairs],
        "icl": [supervised_contrast(s[pair], labels) for pair in pairs],
        "soft_icl": [distillation(s[i, j], s[j, i].detach(), temperature) for i, j in pairs],
    }
    return {name: torch.stack(values).sum() for name, values in terms.items()}


class MCL(Method):
    """The sum over all networks of cross-entropy, and the terms of `mutual_contrast`. The student is the network that is kept.

    Args:
        vcl_weight, soft_vcl_weight, icl_weight, soft_icl_weight: a to d.
        kd_weight: of the divergences from the mean of all logits.
        contrast_temperature: τ.
        temperature: T, of all divergences.
        embedding_dim: D.
        cohort: the architecture of each network besides the student; None: the student's.
        kd_networks: which networks learn from the mean of all logits.
    """

    images_per_anchor = 2

    vcl_weight: float
    soft_vcl_weight: float
    icl_weight: float
    soft_icl_weight: float
    kd_weight: float
    contrast_temperature: float
    temperature: float
    embedding_dim: int
    cohort: tuple[str | None, ...]
    kd_networks: Literal["all", "last"]

    def setup(self) -> None:
        if not self.cohort:
            raise RunError("mcl needs at least one network besides the student: MCL.cohort is empty")
        for name in self.cohort:
            self.add_peer(name)
        size = self.embedding_dim
        widths = [network.fc.in_features for network in self.networks()]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, size), nn.ReLU(), nn.Linear(size, size)) for width in widths
        )
        self.class_index = ClassIndex(self.info.train_labels.cpu())  # `sample` draws there, on any device

    def sample(self, anchors: Tensor, streams: Streams) -> Tensor:
        """Anchors, then a partner for each."""
        return torch.cat([anchors, self.class_index.same_class(anchors, streams("partners"))])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = [network(batch.images, features=True) for network in self.networks()]
        logits = [each.logits for each in out]
        with full_precision(batch.images.device):
            pooled = [at_least_float32(each.pooled) for each in out]
            own = [normalised(head(x)) for head, x in zip(self.heads, pooled, strict=True)]
            embeddings = [batch.share.gather(x) for x in own]
            labels = batch.share.gather(batch.labels)
            terms = mutual_contrast(embeddings, labels, self.contrast_temperature, self.temperature)
        weights = (self.vcl_weight, self.soft_vcl_weight, self.icl_weight, self.soft_icl_weight)
        return {
            "ce": torch.stack([self.cross_entropy(z, batch.labels) for z in logits]).sum(),
            **{name: weight * term for weight, (name, term) in zip(weights, terms.items(), strict=True)},
            **self._kd(logits),
        }

    def _kd(self, logits: Sequence[Tensor]) -> dict[str, Tensor]:
        """The term of the mean of all logits, if it is wanted."""
        if not self.kd_weight:
            return {}
        mean = torch.stack(list(logits)).mean(dim=0).detach()
        taught = logits if self.kd_networks == "all" else logits[-1:]
        return {"kd": self.kd_weight * torch.stack([distillation(z, mean, self.temperature) for z in taught]).sum()}
