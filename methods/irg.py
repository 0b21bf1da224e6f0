"""IRG: instance relationship graph, the student learns the distances between images and how they change between layers.

Liu, Cao, Li, Yuan, Hu, Li and Duan, "Knowledge distillation via instance relationship graph", CVPR 2019.

Family: relation
Loss: CE + T² · KL + 0.005 · MSE(D, D^t), and + 0.005 · MSE(g, g^t) where the widths agree; D_ij = ‖g_i − g_j‖² / max D
Source: SemCKD, distiller_zoo/IRG.py ("semckd"); Knowledge-Distillation-Zoo, kd_losses/irg.py ("zoo"); IRG ("authors")
Choice: `reading` is "semckd" by default, because published results on CIFAR-100 were made with it. "zoo" compares logits, the
    edges of two stages and of the pooled feature, and the change between these stages (weights 0.1, 5 and 5 there, without
    KD). "authors" has edges, and changes of each image between layers (weights 0.005).
Choice: "semckd" can compare changes between stages, which its toolbox does not by default: `transformation_weight` is 0.
    Which stages is left open there; here these are all that follow one another.
Choice: the authors compare layers of equal shape. A stage has one map here, so "authors" compares stages that follow one
    another, averaged to equal shapes as in "zoo".
Choice: "zoo" is written for networks of equal widths. Nothing in its formula needs them, and it runs with others too.
Choice: where all images are equal all distances are 0, without a gradient.
Fault: the authors' layer passes on half of the gradient, and nothing through the maximum. Here it is the loss's own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method, Share, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import equal_resolution, paired

EPSILON = 1e-12  # added to the largest distance


def edges(x: Tensor) -> Tensor:
    """Squared distances of all pairs of images over the largest; features (B, D) or maps (B, C, H, W), result (B, B)."""
    rows = x.flatten(1)
    rows = rows - rows.mean(dim=0)  # of centred rows the products are no larger than the distances, and lose no digits
    products = rows @ rows.T
    squares = products.diagonal()
    return _over_largest((squares[:, None] + squares - 2 * products).clamp(min=0))


def changes(x: Tensor, deeper: Tensor) -> Tensor:
    """Squared distance of each image between two maps, over the largest; maps (B, C, H, W) and (B, C', H', W'), result (B,).

    The larger width and resolution are averaged to the smaller: of channels, those that follow one another.
    """
    x, deeper = equal_resolution(x, deeper)
    channels = min(x.shape[1], deeper.shape[1])
    x, deeper = _narrowed(x, channels), _narrowed(deeper, channels)
    return _over_largest((x - deeper).square().flatten(1).sum(dim=1))


def _narrowed(x: Tensor, channels: int) -> Tensor:
    if x.shape[1] == channels:
        return x
    # Pooling of a constant: on a GPU adaptive pooling itself has no gradient that is the same each time.
    shares = F.adaptive_avg_pool1d(torch.eye(x.shape[1], dtype=x.dtype, device=x.device).unsqueeze(0), channels)[0]
    return torch.einsum("bchw,cd->bdhw", x, shares)


def _over_largest(distances: Tensor) -> Tensor:
    largest = distances.max()
    return torch.where(largest > EPSILON, distances / (largest + EPSILON), 0.0)


def semckd_parts(ours: Features, theirs: Features) -> dict[str, Tensor]:
    """Unweighted terms as in the SemCKD toolbox; "transformation" where there are stages, "vertices" where widths agree."""
    parts = {"edges": F.mse_loss(edges(ours.pooled), edges(theirs.pooled))}
    if ours.pooled.shape == theirs.pooled.shape:
        parts["vertices"] = F.mse_loss(ours.pooled, theirs.pooled)
    if ours.stages:
        x, target = ([edges(each) for each in network.stages] for network in (ours, theirs))
        between = [
            F.mse_loss(*two) - F.mse_loss(*their) for two, their in zip(pairwise(x), pairwise(target), strict=True)
        ]
        parts["transformation"] = torch.stack(between).square().sum()
    return parts


def zoo_parts(ours: Features, theirs: Features) -> dict[str, Tensor]:
    """Unweighted terms as in Knowledge-Distillation-Zoo, of logits, the two deepest stages and pooled features."""
    x, target = ((*network.stages[-2:], network.pooled) for network in (ours, theirs))
    between = [F.mse_loss(edges(a), edges(b)) for a, b in zip(x, target, strict=True)]
    return {
        "vertices": F.mse_loss(ours.logits, theirs.logits),
        "edges": torch.stack(between).mean(),
        "transformation": F.mse_loss(changes(*x[:2]), changes(*target[:2])),
    }


def authors_parts(ours: Features, theirs: Features) -> dict[str, Tensor]:
    """Unweighted terms as in the authors' layers: half of the squared differences, summed over all, over B."""
    parts = {"edges": _half(edges(ours.pooled), edges(theirs.pooled))}
    if ours.stages:
        x, target = ([changes(*two) for two in pairwise(network.stages)] for network in (ours, theirs))
        parts["transformation"] = torch.stack([_half(a, b) for a, b in zip(x, target, strict=True)]).sum()
    return parts


def _half(x: Tensor, target: Tensor) -> Tensor:
    return (x - target).square().sum() / (2 * len(x))


PARTS = {"semckd": semckd_parts, "zoo": zoo_parts, "authors": authors_parts}


class IRG(Method):
    """Cross-entropy, distillation, and differences between the two networks' graphs of the images of a batch.

    Args:
        reading: whose code the graphs follow.
        vertex_weight: weight of the differences of single images; "authors" has no such term.
        edge_weight: weight of the differences of distances.
        transformation_weight: weight of the differences of changes from stage to stage; 0: without them.
        kd_weight, temperature: weight and temperature of the distillation term; 0: without it.
    """

    needs_teacher = True

    reading: Literal["semckd", "zoo", "authors"]
    vertex_weight: float
    edge_weight: float
    transformation_weight: float
    kd_weight: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        with_maps = self.reading == "zoo" or self.transformation_weight > 0
        out = self.student(batch.images, features=True)
        taught = self.teach(batch, "pooled", "logits", *(["stages"] if with_maps else []))
        stages = paired(out.stages, taught.stages) if with_maps else []
        with full_precision(batch.images.device):
            ours = _whole(out, [x for x, _ in stages], batch.share)
            theirs = _whole(taught, [target for _, target in stages], batch.share)
            parts = PARTS[self.reading](ours, theirs)
        weights = {
            "vertices": self.vertex_weight,
            "edges": self.edge_weight,
            "transformation": self.transformation_weight,
        }
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            **{name: weights[name] * part for name, part in parts.items()},
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }


def _whole(features: Features, stages: list[Tensor], share: Share) -> Features:
    """Outputs for the whole batch in float32, with these stages."""
    logits, pooled, *stages = (share.gather(at_least_float32(x)) for x in (features.logits, features.pooled, *stages))
    return Features(logits, tuple(stages), pooled)
