"""KDCL: two networks see an image each in its own view, and learn from one target that is made of the logits of both.

Guo, Wang, Wu, Yu, Liang, Hu and Luo, "Online knowledge distillation via collaborative learning", CVPR 2020.

Family: online
Loss: Σ_i [a · CE(z_i) + λ · T² · KL(softmax(t / T) ‖ softmax(z_i / T))], t_k = min_i (z_ik − z_iy) detached
Source: the paper and two re-implementations; the authors have not published their code
Choice: `target` is "min", the paper's MinLogit. "mean" is the mean of the logits, to which one re-implementation gives T = 4 and
    weights of 0.5 (KDCL.target='mean' KDCL.temperature=4.0 KDCL.ce_weight=0.5 KDCL.kd_weight=0.5). "naive" is those of the network
    with the lower cross-entropy, which we take for each image. The paper's Linear and General, which solve for weights, are
    not offered.
Choice: `detached` keeps the gradient out of the target, which the re-implementation of MinLogit does not. It also averages over the
    classes, so that its λ = 1 is 1 / K here.
Choice: the networks are two, and the student is the one that is kept. Each has one view, so that an image counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, distillation


def least_logits(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """For each image and class the least of z_k − z_y over the networks: 0 at the label, and low at the others.

    Args:
        logits: (B, K) of each network.
        labels: (B,).
    """
    stacked = torch.stack([at_least_float32(z) for z in logits])
    own = labels.expand(len(stacked), -1).unsqueeze(2)
    return (stacked - stacked.gather(2, own)).amin(dim=0)


def surest_logits(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """For each image the logits (B, K) of the network with the least cross-entropy; logits (B, K) each, labels (B,)."""
    stacked = torch.stack([at_least_float32(z) for z in logits])
    best = torch.stack([F.cross_entropy(z, labels, reduction="none") for z in stacked]).argmin(dim=0)
    return stacked[best, torch.arange(len(labels), device=labels.device)]


def collaborative_target(logits: Sequence[Tensor], labels: Tensor, target: Literal["min", "mean", "naive"]) -> Tensor:
    """Logits (B, K) that all networks learn, with gradient; logits (B, K) of each network, labels (B,)."""
    if target == "mean":
        return torch.stack([at_least_float32(z) for z in logits]).mean(dim=0)
    return least_logits(logits, labels) if target == "min" else surest_logits(logits, labels)


class KDCL(Method):
    """The sum over two networks of cross-entropy and a divergence from a target of both. The student is the one that is kept.

    Args:
        ce_weight, kd_weight: a and λ.
        temperature: T.
        target: see `collaborative_target`.
        detached: whether the gradient is kept out of the target.
        peer: the architecture of the other network; None: the student's.
    """

    views = ("recipe", "recipe")
    passes = 1

    ce_weight: float
    kd_weight: float
    temperature: float
    target: Literal["min", "mean", "naive"]
    detached: bool
    peer: str | None

    def setup(self) -> None:
        self.add_peer(self.peer)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        labels, *_ = batch.labels.chunk(batch.view_count)
        logits = [network(images) for network, images in zip(self.networks(), batch.views(), strict=True)]
        target = collaborative_target(logits, labels, self.target)
        target = target.detach() if self.detached else target
        kd = torch.stack([distillation(z, target, self.temperature) for z in logits]).sum()
        return {
            "ce": self.ce_weight * torch.stack([self.cross_entropy(z, labels) for z in logits]).sum(),
            "kd": self.kd_weight * kd,
        }
