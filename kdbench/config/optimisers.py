"""The optimisers that a recipe may choose by `Train.optimiser`, and their settings. No torch here: kdbench/method/optimiser.py
builds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import gin

from kdbench.errors import require


@gin.configurable
@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent.

    Attributes:
        lr: peak learning rate; the schedule multiplies it.
        momentum, weight_decay, nesterov: the same as for torch.optim.SGD.
    """

    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool

    def __post_init__(self) -> None:
        require(self.lr > 0, "SGD.lr must be above 0")
        require(0 <= self.momentum < 1, "SGD.momentum must be at least 0 and below 1")
        require(self.weight_decay >= 0, "SGD.weight_decay must be at least 0")
        require(self.momentum > 0 or not self.nesterov, "SGD.nesterov needs SGD.momentum above 0")


@gin.configurable
@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay. Loshchilov and Hutter, ICLR 2019, algorithm 2, with ε = 1e-8 as in torch.

    Attributes:
        lr: peak learning rate; the schedule multiplies it, and with it the weight decay.
        betas: decay rates of the mean of gradients and of their squares.
        weight_decay: as in torch.optim.AdamW.
        decay_vectors: whether parameters of one dimension decay too: biases, and the weights of normalisation layers. Recipes
            for transformers leave them out (Touvron et al., DeiT, ICML 2021).
    """

    lr: float
    betas: tuple[float, ...]
    weight_decay: float
    decay_vectors: bool

    def __post_init__(self) -> None:
        require(self.lr > 0, "AdamW.lr must be above 0")
        fits = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(fits, "AdamW.betas must be two numbers, each at least 0 and below 1")
        require(self.weight_decay >= 0, "AdamW.weight_decay must be at least 0")


USUAL: Final = "sgd"
"""The optimiser of a recipe that does not choose one; it then leaves no trace in configurations, ids and protocols."""

OPTIMISERS: dict[str, type[SGD] | type[AdamW]] = {"sgd": SGD, "adamw": AdamW}
"""The settings of each optimiser, by the value of `Train.optimiser`."""
