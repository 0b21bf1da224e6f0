"""DKS: further classifiers after earlier stages, with stages of their own, and all classifiers teach one another.

Sun, Yao, Zhou and Zhao, "Deeply-supervised knowledge synergy", CVPR 2019.

Family: self
Loss: Σ_i CE(z_i, y) + w · Σ_{i≠j} T² · KL(softmax(z_j / T) ‖ softmax(z_i / T)), z_j detached, over the main classifier and two
    branches, w = T = 1
Source: the authors' code (wrn_DKS/main.py, KL_divergence.py), and Self-KD-Lib
Choice: `temperature` is 1 by default, as in the authors' code; Self-KD-Lib has 4, with the factor T²
Choice: `branches` is 2 by default, after each of the two stages before the deepest, as in the authors' networks; with more, there
    is one after each of so many stages before the deepest, as far as there are stages
Choice: a branch is a newly drawn copy of the stages that follow. The authors' branches for WRN-28-10 are longer or wider than
    the main path, and differ from network to network.
Choice: the authors add 1e-8 to probabilities before the logarithm; logarithms of a softmax do not need it
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

from kdbench.method import Backbone, Batch, Method, distillation
from kdbench.method.exits import branch_logits, numbered


def synergy(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """T² · KL(softmax(z_j/T) ‖ softmax(z_i/T)) summed over all ordered pairs, batch mean; z_j has no gradient.

    Args:
        logits: (B, K) of each classifier.
    """
    return torch.stack([distillation(z, other.detach(), temperature) for z, other in permutations(logits, 2)]).sum()


class DKS(Method):
    """Cross-entropy of the main classifier and of all branches, and `synergy` of all of them.

    Args:
        branches: how many there are, after the stages before the deepest.
        weight: of the synergy.
        temperature: T.
    """

    branches: int
    weight: float
    temperature: float

    def setup(self) -> None:
        self.further = self._fresh_branches(self.student)

    def _fresh_branches(self, network: Backbone) -> nn.ModuleList:
        """Newly drawn copies of the later stages of a network, for the maps of the stages before the deepest."""
        stages = len(network.stage_modules())
        firsts = range(max(1, stages - self.branches), stages)
        return nn.ModuleList(network.fresh_stages(first) for first in firsts)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        further = branch_logits(self.further, out.stages)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "branch_ce": torch.stack([self.cross_entropy(z, batch.labels) for z in further]).sum(),
            "synergy": self.weight * synergy([*further, out.logits], self.temperature),
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        return numbered("branch", branch_logits(self.further, self.student(images, features=True).stages))
