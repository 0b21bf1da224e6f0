"""PCL: branches with a view each learn from a classifier of all their features, and from moving averages of one another.

Wu and Gong, "Peer collaborative learning for online knowledge distillation", AAAI 2021.

Family: online
Loss: Σ_i CE(z_i) + CE(z_e) + w · Σ_i [KL_T(z_e → z_i) + mean over j ≠ i of KL_T(m_j → z_i)] over three branches, z_i of view i,
    z_e = Linear([g_1, g_2, g_3]), m_j of view j by averages of all parameters, w = exp(−5 · (1 − progress / ramp)²) until `ramp`
    and 1 from there; KL_T(t → z) = T² · KL(softmax(t / T) ‖ softmax(z / T)), t detached
Source: an implementation of others (shaoeric/Peer-Collaborative-Learning-for-Online-Knowledge-Distillation)
Choice: `kept` is "peer": the student, the first branch, as in the paper. "average" keeps the average of the first branch. As
    averages alone often help, compare it with an average of a student that learns by itself, which kdbench does not offer.
Choice: views pass through the shared stages one after the other, as in the source, and batch normalisation sees one at a time.
Choice: averages are of parameters alone, with the decay min(1 − 1 / (t + 1), `decay`) after step t from 0. Their batch
    normalisation is that of training, with running statistics of its own, as in the source.
Choice: the branches start differently. In the source their classifiers are copies.
Fault: the weight w of the source is exp(−5 · (1 − e)²) in epoch e from 0, which is 0.007, 1, 0.007 and then nearly 0, until it is
    1 from epoch 80 of 300. Here it rises with each step; PCL.published_ramp=True is the weight of the source.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from kdbench.method import Backbone, Batch, Features, Method, at_least_float32, distillation, full_precision
from kdbench.method.branches import fork, last_stage, ramp_up
from kdbench.methods.one import ensemble_loss

BRANCHES = 3


def averages_loss(logits: Sequence[Tensor], averages: Sequence[Tensor], temperature: float) -> Tensor:
    """Σ_i of the mean over j ≠ i of T² · KL(m_j ‖ z_i); the averages carry no gradient.

    Args:
        logits, averages: z and m, (B, K) of each of at least two branches.
    """
    numbers = range(len(logits))
    others = [[averages[j].detach() for j in numbers if j != i] for i in numbers]
    pairs = zip(logits, others, strict=True)
    return torch.stack([torch.stack([distillation(z, m, temperature) for m in each]).mean() for z, each in pairs]).sum()


def published_ramp_up(epoch: int, progress: float, length: float) -> float:
    """exp(−5 · (1 − e)²), e = epoch − 1, and 1 from `length` on: the weight of the source.

    Args:
        epoch: from 1.
        progress: share of the training that is done.
        length: share of the training after which the weight is 1.
    """
    return math.exp(-5 * (2 - epoch) ** 2) if progress < length else 1.0


def of_views(network: Backbone, branches: Iterable[nn.Module], views: Sequence[Tensor]) -> list[Features]:
    """Features of the network for the first view, and of each branch for one of the others, as `fork` gives them.

    Args:
        branches: copies of the last stage.
        views: (B, C, H, W), one more than there are branches.
    """
    *shared, _ = network.stage_modules()
    maps = []
    for x in map(network.start, views):
        for stage in shared:
            x = stage(x)
        maps.append(x)
    others = [branch(x) for branch, x in zip(branches, maps[1:], strict=True)]
    return [network.run_from(len(shared), maps[0]), *others]


class PCL(Method):
    """Cross-entropies of three branches and of the classifier of their features, and what the branches learn from it and averages.

    Args:
        ensemble_weight: of the divergences from the classifier of all features, when the weight has risen.
        average_weight: of `averages_loss`, when the weight has risen.
        temperature: T.
        ramp: share of the training over which the weight rises; 0: it does not.
        published_ramp: whether it does so as in the source.
        decay: largest share of an average that stays in a step.
        kept: the network that is deployed, the first branch or the average of it.
    """

    views = ("recipe", "recipe", "recipe")

    ensemble_weight: float
    average_weight: float
    temperature: float
    ramp: float
    published_ramp: bool
    decay: float
    kept: Literal["peer", "average"]

    def setup(self) -> None:
        last = last_stage("pcl", self.student)
        self.branches = nn.ModuleList(self.student.fresh_stages(last) for _ in range(BRANCHES - 1))
        self.classifier = nn.Linear(BRANCHES * self.student.fc.in_features, self.info.classes)
        # A peer, so that the images that pass through it are counted.
        self.average = self.add_peer()
        self.average.load_state_dict(self.student.state_dict())
        self.average_branches = copy.deepcopy(self.branches)
        self.untrained(self.average)
        self.untrained(self.average_branches)

    def fused(self, out: Sequence[Features]) -> Tensor:
        """Logits (B, K) of the features of all branches."""
        features = torch.cat([at_least_float32(each.pooled) for each in out], dim=1)
        with full_precision(features.device):
            logits: Tensor = self.classifier(features)
            return logits

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        views, (labels, *_) = batch.views(), batch.labels.chunk(batch.view_count)
        out = of_views(self.student, self.branches, views)
        logits, fused = [each.logits for each in out], self.fused(out)
        with torch.no_grad():
            averages = [each.logits for each in of_views(self.average, self.average_branches, views)]
        weight = ramp_up(batch.progress, self.ramp)
        if self.published_ramp:
            weight = published_ramp_up(batch.epoch, batch.progress, self.ramp)
        return {
            "ce": torch.stack([self.cross_entropy(z, labels) for z in logits]).sum(),
            "fused_ce": self.cross_entropy(fused, labels),
            "kd": self.ensemble_weight * weight * ensemble_loss(logits, fused, self.temperature),
            "averages": self.average_weight * weight * averages_loss(logits, averages, self.temperature),
        }

    def after_step(self, batch: Batch) -> None:
        share = 1 - min(1 - 1 / (batch.step + 1), self.decay)
        averages = chain(self.average.parameters(), self.average_branches.parameters())
        for average, own in zip(averages, chain(self.student.parameters(), self.branches.parameters()), strict=True):
            average.lerp_(own, share)

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        own, *others = fork(self.student, self.branches, images)
        first = {"branch1": own.logits} if self.kept == "average" else {"average1": self.average(images)}
        named = {f"branch{number}": out.logits for number, out in enumerate(others, start=2)}
        return {**first, **named, "fused": self.fused([own, *others])}

    def deployed(self) -> nn.Module:
        return self.student if self.kept == "peer" else self.average
