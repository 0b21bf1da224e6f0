"""CRLD: each of two views imitates the teacher on its own view and on the other, where the teacher is confident.

Zhang, Liu, Cai and Ma, "Cross-view consistency regularisation for knowledge distillation", ACM MM 2024.

Family: logit
Loss: CE(z_w) + CE(z_s) + 2 · mean(M_w (k(zᵗ_w, z_w) + k(zᵗ_s, z_s))) + 0.5 · mean(M_s (k(zᵗ_w, z_s) + k(zᵗ_s, z_w))), k = T² KL_T,
    M_w = 1[max softmax(zᵗ_w) ≥ 0.9], M_s = 1[max softmax(zᵗ_s) ≥ 0.2], of the weak view (w, the recipe's) and the strong one (s)
Source: two copies of the authors' distiller that agree, one of them in haiduo/DeepKD (distillers/CRLD.py)
Choice: `gate` is "term" as published: the weak view's confidence gates the terms within a view, also that of the strong one, and
    the strong view's confidence gates the terms across. "own" gates each target by the confidence on its own view.
Choice: images that are gated out count in the mean, as published.
Choice: the weight of the terms across is 0.5 for all pairs of networks, where others' configurations have 0.5 to 2.
Choice: the views pass through the student one after the other, as published, so that batch normalisation sees one of them at a
    time; the strong view is that of `Strong.*`.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32
from kdbench.method.logits import divergence_of_each


def confident(target_logits: Tensor, threshold: float) -> Tensor:
    """1 for the images (B,) whose largest probability is at least `threshold`, else 0; logits (B, K)."""
    probabilities = F.softmax(at_least_float32(target_logits), dim=1)
    return (probabilities.amax(dim=1) >= threshold).to(probabilities.dtype)


def view_losses(
    logits: tuple[Tensor, Tensor],
    target_logits: tuple[Tensor, Tensor],
    temperature: float,
    thresholds: tuple[float, float],
    gate: Literal["term", "own"] = "term",
) -> tuple[Tensor, Tensor]:
    """Means over the batch of the gated divergences within the views, and of those across them, with the factor T².

    Args:
        logits, target_logits: (B, K) of the weak view and of the strong one, of student and teacher.
        thresholds: least confidence of the teacher on the weak view and on the strong one.
        gate: "term": the weak view gates all divergences within, and the strong one all across; "own": each target is gated
            by the confidence on its own view.
    """
    (weak, strong), (weak_target, strong_target) = ([each / temperature for each in x] for x in (logits, target_logits))
    of_weak, of_strong = (confident(t, least) for t, least in zip(target_logits, thresholds, strict=True))
    within = divergence_of_each(weak, weak_target), divergence_of_each(strong, strong_target)
    across = divergence_of_each(strong, weak_target), divergence_of_each(weak, strong_target)
    gates = ((of_weak, of_weak), (of_strong, of_strong)) if gate == "term" else ((of_weak, of_strong),) * 2
    losses = [(m[0] * k[0] + m[1] * k[1]).mean() for m, k in zip(gates, (within, across), strict=True)]
    return temperature**2 * losses[0], temperature**2 * losses[1]


class CRLD(Method):
    """Cross-entropies of both views, and `view_losses`.

    Args:
        within_weight, across_weight: of the divergences within the views and across them.
        temperature: T.
        weak_threshold, strong_threshold: least confidence of the teacher on each view.
        gate: the view whose confidence counts.
    """

    needs_teacher = True
    views = ("recipe", "strong")

    within_weight: float
    across_weight: float
    temperature: float
    weak_threshold: float
    strong_threshold: float
    gate: Literal["term", "own"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        weak_images, strong_images = batch.views()
        weak, strong = self.student(weak_images), self.student(strong_images)
        weak_target, strong_target = self.teach(batch, "logits").logits.chunk(2)
        thresholds = self.weak_threshold, self.strong_threshold
        within, across = view_losses(
            (weak, strong), (weak_target, strong_target), self.temperature, thresholds, self.gate
        )
        return {
            "ce": 2 * self.cross_entropy(torch.cat([weak, strong]), batch.labels),
            "within": self.within_weight * within,
            "across": self.across_weight * across,
        }
