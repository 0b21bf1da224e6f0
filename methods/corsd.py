"""Class-oriented relational self-distillation: relation networks judge image pairs at every stage, the deepest teaches.

Yu, Tan, Wu, Dong, Zhang and Ma, "CORSD: class-oriented relational self distillation", ICASSP 2023.

Family: self
Loss: CE + λ₁ · Σ ranking + λ₂ · Σ (r_s − r_S)² + Σ CE and KL(deepest ‖ stage) of auxiliary classifiers
Source: the abstract and the authors' code, which does not run as published
Choice: `detach_deepest` is True, because the abstract has knowledge go from the deepest layer to shallow layers; the code
    has False
Choice: `relation` is "network"; "l2" is a control with a relation made by hand
Choice: `class_memory_weight` is 0, because the abstract does not mention this term; the code's own form of it is broken
Fault: the code feeds raw logits to a KL function, which gives NaN; `kl` is "softened" here, and "raw" in the code
Fault: the code softens the half-half label of a negative pair until it is nearly uniform; `soften_half_label` is False here,
    and True in the code
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import (
    Batch,
    ClassIndex,
    Method,
    Streams,
    at_least_float32,
    full_precision,
    soft_cross_entropy,
    softened_kl,
)

PARTS = ("ranking", "relation", "aux_ce", "aux_kd", "mixed_ce", "mixed_kd")
"""The terms of the relation networks, each with a weight; the last four belong to their auxiliary classifiers."""

# In all losses: S stages, shallowest first, M triplets, K classes; sums over stages, means over triplets.


def ranking_loss(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """max(r(a, p) − r(a, n) + margin, 0) at every stage; relation scores (S, M) of the two pairs."""
    return F.relu(positive - negative + margin).mean(dim=1).sum()


def relation_loss(scores: Tensor, detach_deepest: bool) -> Tensor:
    """(r_s − r_S)² for the stages below the deepest; relation scores (S, M) of one kind of pair."""
    deepest = scores[-1].detach() if detach_deepest else scores[-1]
    return (scores[:-1] - deepest).square().mean(dim=1).sum()


def positive_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of the auxiliary logits (S, M, K) on positive pairs; labels (M,) of the shared class."""
    return torch.stack([F.cross_entropy(stage, labels, label_smoothing=label_smoothing) for stage in logits]).sum()


def mixed_loss(
    logits: Tensor, labels: Tensor, negative_labels: Tensor, temperature: float, soften_half_label: bool
) -> Tensor:
    """Soft cross-entropy of the auxiliary logits / T on negative pairs, with half the label on each of the two classes.

    Args:
        logits: (S, M, K).
        labels, negative_labels: (M,) classes of the anchor and of the negative.
        soften_half_label: take softmax(label / T) for the label, as the published code does; it is nearly uniform.
    """
    classes = logits.shape[-1]
    target = (F.one_hot(labels, classes) + F.one_hot(negative_labels, classes)).to(logits.dtype) / 2
    if soften_half_label:
        target = F.softmax(target / temperature, dim=1)
    return torch.stack([soft_cross_entropy(stage / temperature, target) for stage in logits]).sum()


def shallow_kl(logits: Tensor, temperature: float, kl: Literal["softened", "raw"], detach_deepest: bool) -> Tensor:
    """KL(deepest ‖ stage) of the auxiliary logits (S, M, K) for the stages below the deepest, without a factor T².

    With `kl` "raw" the logits themselves stand where a logarithm and a distribution belong, as in the published code:
    the result is NaN as soon as one logit of the deepest stage is negative.
    """
    deepest = logits[-1].detach() if detach_deepest else logits[-1]
    if kl == "raw":
        return torch.stack([F.kl_div(stage, deepest, reduction="batchmean") for stage in logits[:-1]]).sum()
    return torch.stack([softened_kl(stage, deepest, temperature) for stage in logits[:-1]]).sum()


def class_memory_loss(logits: Tensor, memory: Tensor, seen: Tensor, temperature: float) -> Tensor:
    """KL(memory of an image's class ‖ its logits), averaged over the images whose class has been seen before.

    Args:
        logits, memory: (B, K); the memory row of each image.
        seen: (B,) bool.
    """
    # A row that is its own target adds 0 to the value and to the gradient: a mask without a data-dependent shape.
    target = torch.where(seen.unsqueeze(1), memory, logits.detach())
    return softened_kl(logits, target, temperature) * (len(logits) / seen.sum().clamp(min=1))


def moved_memory(
    memory: Tensor, seen: Tensor, logits: Tensor, labels: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Class memory (K, K) and seen flags (K,) after one step towards the mean logits of each class in the batch.

    A class that is met for the first time takes its mean as it is; logits (B, K), labels (B,).
    """
    logits = logits.detach().to(memory.dtype)
    count = torch.zeros_like(memory[:, 0]).index_add_(0, labels, torch.ones_like(logits[:, 0])).unsqueeze(1)
    mean = torch.zeros_like(memory).index_add_(0, labels, logits) / count.clamp(min=1)
    stepped = torch.where(seen.unsqueeze(1), momentum * memory + (1 - momentum) * mean, mean)
    return torch.where(count > 0, stepped, memory), seen | (count.squeeze(1) > 0)


class RelationNetwork(nn.Module):
    """From the stage maps of a pair to a relation score (0: same class, 1: not) and auxiliary logits.

    Args:
        widths: channels of its own stage and of every stage below, down to the deepest.
        hidden: width inside the relation head.
        classes: number of auxiliary logits K.
    """

    def __init__(self, widths: Sequence[int], hidden: int, classes: int):
        super().__init__()
        pair = [2 * width for width in widths]
        self.trunk = nn.Sequential(*map(_separable_block, pair, pair[1:]))
        self.relation = nn.Sequential(
            nn.Linear(pair[-1], hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        self.auxiliary = nn.Linear(pair[-1], classes)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (P,) and auxiliary logits (P, K) of P pairs of maps, each (P, C, H, W)."""
        # On a CPU the backward pass of depth-wise convolutions is several times slower in bfloat16 than in float32.
        with full_precision(first.device):
            pooled = self.trunk(at_least_float32(torch.cat([first, second], dim=1))).mean(dim=(2, 3))
            return torch.sigmoid(self.relation(pooled)).squeeze(1), self.auxiliary(pooled)


class L2Relation(nn.Module):
    """A relation made by hand, for the control without relation networks: no auxiliary logits, nothing to train."""

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, None]:
        """L2 distance of the pooled and normalised maps of P pairs, each (P, C, H, W), over √2: (P,), in 0..1 after a ReLU."""
        one, other = (F.normalize(at_least_float32(x).mean(dim=(2, 3)), dim=1) for x in (first, second))
        return torch.linalg.vector_norm(one - other, dim=1) / 2**0.5, None


def _separable_block(in_width: int, width: int) -> nn.Sequential:
    """Two depth-wise separable convolutions, the first of stride 2."""

    def half(in_width: int, width: int, stride: int) -> tuple[nn.Module, ...]:
        return (
            nn.Conv2d(in_width, in_width, 3, stride=stride, padding=1, groups=in_width, bias=False),
            nn.Conv2d(in_width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    return nn.Sequential(*half(in_width, in_width, 2), *half(in_width, width, 1))


class CORSD(Method):
    """Cross-entropy of the backbone on triplets (anchor, positive, negative), and relation networks at every stage.

    Args:
        temperature: T of divergences and of the negative pairs' cross-entropy.
        margin: of the ranking loss.
        ranking_weight, relation_weight: of `ranking_loss`, and of `relation_loss` on both kinds of pair.
        aux_ce_weight, aux_kd_weight: of `positive_loss` and `shallow_kl` on positive pairs.
        mixed_ce_weight, mixed_kd_weight: of `mixed_loss` and `shallow_kl` on negative pairs.
        relation: "network" is the method; "l2" puts `L2Relation` in its place, and needs the four auxiliary weights at 0.
        detach_deepest: the deepest stage teaches and is not taught by the shallow ones.
        kl: "softened" distributions, or the "raw" logits of the published code (NaN).
        soften_half_label: soften the half-half label of negative pairs once more, as the published code does.
        class_memory_weight: of `class_memory_loss`; 0 is none, and no memory.
        class_memory_momentum: share of a class's memory that stays.

    Raises:
        ValueError: all training images are of one class; an auxiliary weight without relation networks.
    """

    images_per_anchor = 3

    memory: Tensor
    memory_seen: Tensor

    temperature: float
    margin: float
    ranking_weight: float
    relation_weight: float
    aux_ce_weight: float
    aux_kd_weight: float
    mixed_ce_weight: float
    mixed_kd_weight: float
    relation: Literal["network", "l2"]
    detach_deepest: bool
    kl: Literal["softened", "raw"]
    soften_half_label: bool
    class_memory_weight: float
    class_memory_momentum: float

    def setup(self) -> None:
        widths, classes = [channels for channels, _, _ in self.stage_shapes()], self.info.classes
        self.weights = {name: getattr(self, f"{name}_weight") for name in PARTS}
        if self.relation == "l2" and any(self.weights[name] for name in PARTS[2:]):
            raise ValueError("CORSD.relation='l2' has no auxiliary classifiers: set aux_* and mixed_* weights to 0")
        self.relations = nn.ModuleList(
            RelationNetwork(widths[stage:], (4 if stage == len(widths) - 1 else 2) * widths[0], classes)
            if self.relation == "network"
            else L2Relation()
            for stage in range(len(widths))
        )
        if self.class_memory_weight:
            self.register_buffer("memory", torch.zeros(classes, classes))
            self.register_buffer("memory_seen", torch.zeros(classes, dtype=torch.bool))
        self.class_index = ClassIndex(self.info.train_labels.cpu())  # `sample` draws there, whatever the device

    def sample(self, anchors: Tensor, streams: Streams) -> Tensor:
        """Anchors, then a positive for each (another image of its class), then a negative (of a random other class)."""
        positives = self.class_index.same_class(anchors, streams("positives"))
        negatives = self.class_index.other_class(self.class_index.labels[anchors], streams("negatives"))
        return torch.cat([anchors, positives, negatives])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        terms = {"ce": self.cross_entropy(out.logits, batch.labels)}
        if any(self.weights.values()):  # without them, the control: triplets alone, at the cost of triplets alone
            parts = self._relation_parts(out.stages, batch.labels)
            terms |= {name: self.weights[name] * part for name, part in parts.items()}
        if self.class_memory_weight:
            # What a class's images say is known from the whole batch only, on however many GPUs it lies.
            logits, labels = batch.share.gather(out.logits), batch.share.gather(batch.labels)
            terms["class_memory"] = self.class_memory_weight * self._class_memory(logits, labels)
        return terms

    def _relation_parts(self, stages: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """The six terms of the relation networks, unweighted; stage maps of 3·M images, ordered as `sample` does."""
        triplets = len(labels) // 3
        own, negative_labels = labels[:triplets], labels[2 * triplets :]
        # Both kinds of pair in one pass: were each normalised over itself, batch normalisation would take away the
        # difference between them that the score is to learn.
        out = [
            network(torch.cat([stage[:triplets]] * 2), stage[triplets:])
            for network, stage in zip(self.relations, stages, strict=True)
        ]
        scores = torch.stack([score for score, _ in out]).split(triplets, dim=1)
        parts = {
            "ranking": ranking_loss(scores[0], scores[1], self.margin),
            "relation": relation_loss(scores[0], self.detach_deepest) + relation_loss(scores[1], self.detach_deepest),
        }
        if any(logit is None for _, logit in out):
            return parts
        logits = torch.stack([logit for _, logit in out]).split(triplets, dim=1)
        return parts | {
            "aux_ce": positive_loss(logits[0], own, self.info.label_smoothing),
            "aux_kd": shallow_kl(logits[0], self.temperature, self.kl, self.detach_deepest),
            "mixed_ce": mixed_loss(logits[1], own, negative_labels, self.temperature, self.soften_half_label),
            "mixed_kd": shallow_kl(logits[1], self.temperature, self.kl, self.detach_deepest),
        }

    def _class_memory(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The class-memory term, unweighted; then moves the memory."""
        loss = class_memory_loss(logits, self.memory[labels], self.memory_seen[labels], self.temperature)
        moved = moved_memory(self.memory, self.memory_seen, logits, labels, self.class_memory_momentum)
        self.memory, self.memory_seen = moved
        return loss
