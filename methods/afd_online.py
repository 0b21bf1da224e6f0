"""AFD (online): two networks learn together, each of them with a discriminator, which its deepest maps are to deceive.

Chung, Park, Kim and Kwak, "Feature-map-level online adversarial knowledge distillation", ICML 2020.

Family: online
Loss: Σ_i [CE(z_i) + w · T² · KL(softmax(z_j / T) ‖ softmax(z_i / T)) + v · mean (1 − D_i(F_i))²] for the networks, j the other one,
    and Σ_i mean [(1 − D_i(F_j))² + D_i(F_i)²] for the discriminators
Source: the paper; the authors have not published their code. The layers of the discriminators and the settings of their
    optimiser are those of the one public re-implementation.
Choice: D_i takes the map of its own network for false and that of the other for true, as in the paper. In the re-implementation
    each network is rewarded for what its discriminator already calls true, which both of them want.
Choice: the gradients of the networks and of the discriminators belong to the weights before the step; then the discriminators
    take a step, and then the networks do
Choice: the adversarial term of the networks goes into the recipe's optimiser, with its weight v (`adversarial_weight`). The
    re-implementation has an Adam for it with the settings of the discriminators'.
Choice: the rate of the discriminators follows the recipe's schedule, from `discriminator_rate`
Choice: the maps of both networks pass through a discriminator together, so that batch normalisation keeps their difference
Choice: both networks have deepest maps of one shape; others are refused
Choice: the student is the network that is kept
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, Update, at_least_float32, distillation, full_precision

HIDDEN = 256  # channels within a discriminator


def discriminator_loss(own: Tensor, other: Tensor) -> Tensor:
    """mean (1 − other)² + mean own²; scores (B, …) of a network's own maps and of the other's."""
    return (1 - other).square().mean() + own.square().mean()


def deceiving_loss(own: Tensor) -> Tensor:
    """mean (1 − own)²; scores (B, …) of a network's own maps."""
    return (1 - own).square().mean()


class Discriminator(nn.Module):
    """Two convolutions, 2×2 where the map is large enough, with BN and leaky ReLU between them and a sigmoid behind.

    Args:
        shape: (channels, height, width) of the maps.
    """

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__()
        width, height, breadth = shape
        first = min(2, height), min(2, breadth)
        second = min(2, height - first[0] + 1), min(2, breadth - first[1] + 1)
        self.layers = nn.Sequential(
            nn.Conv2d(width, HIDDEN, first), nn.BatchNorm2d(HIDDEN), nn.LeakyReLU(0.2), nn.Conv2d(HIDDEN, 1, second)
        )

    def forward(self, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, 1, h, w) between 0 and 1 of the maps (B, C, H, W) of its own network and of the other."""
        with full_precision(own.device):
            scores = self.layers(at_least_float32(torch.cat([own, other]))).sigmoid()
        first, second = scores.chunk(2)
        return first, second


class AFDOnline(Method):
    """Cross-entropy, mutual distillation and `deceiving_loss` of both networks, and `discriminator_loss` in turn with them.

    Args:
        mutual_weight: of the distillation from the other network.
        adversarial_weight: of `deceiving_loss`.
        temperature: of the distillation.
        discriminator_rate: largest learning rate of the discriminators' Adam.
        discriminator_decay: its weight decay.
        peer: the architecture of the other network; None: the student's.
    """

    mutual_weight: float
    adversarial_weight: float
    temperature: float
    discriminator_rate: float
    discriminator_decay: float
    peer: str | None

    def setup(self) -> None:
        shape = self.stage_shapes()[-1]
        other = self.stage_shapes(self.add_peer(self.peer))[-1]
        if shape != other:
            raise RunError(
                f"afd_online needs two networks with deepest maps of one shape; the student's is {shape}, the other's {other}"
            )
        self.discriminators = nn.ModuleList(Discriminator(shape) for _ in range(2))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = [network(batch.images, features=True) for network in self.networks()]
        ce, mutual, deceiving, discriminating = [], [], [], []
        for own, other, discriminator in zip(out, reversed(out), self.discriminators, strict=True):
            ce.append(self.cross_entropy(own.logits, batch.labels))
            mutual.append(distillation(own.logits, other.logits.detach(), self.temperature))
            mine, target = own.stages[-1], other.stages[-1].detach()
            deceiving.append(deceiving_loss(discriminator(mine, target)[0]))
            discriminating.append(discriminator_loss(*discriminator(mine.detach(), target)))
        return {
            "ce": torch.stack(ce).sum(),
            "mutual": self.mutual_weight * torch.stack(mutual).sum(),
            "deceive": self.adversarial_weight * torch.stack(deceiving).sum(),
            "discriminate": torch.stack(discriminating).sum(),
        }

    def optimisers(self, parameters: list[nn.Parameter], settings: Any) -> dict[str, torch.optim.Optimizer]:
        own = list(self.discriminators.parameters())
        theirs = {id(p) for p in own}
        group = {"params": own, "rate_factor": self.discriminator_rate / settings.lr}
        return {
            "discriminators": torch.optim.Adam([group], lr=settings.lr, weight_decay=self.discriminator_decay),
            **super().optimisers([p for p in parameters if id(p) not in theirs], settings),
        }

    def update(self, terms: Mapping[str, Tensor], update: Update) -> None:
        of_networks = {name: term for name, term in terms.items() if name != "discriminate"}
        networks = update.gradient(update.total(of_networks), keep_graph=True)
        discriminators = update.gradient(terms["discriminate"])
        update.set_gradient(discriminators)
        update.step("discriminators")
        update.set_gradient(networks)
        update.step(*(name for name in update.optimisers if name != "discriminators"))
