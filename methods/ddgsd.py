"""DDGSD: two distortions of an image are to be judged alike, and their features to be alike on average.

Xu and Liu, "Data-distortion guided self-distillation for deep neural networks", AAAI 2019.

Family: self
Loss: w · (CE(z_a) + CE(z_b)) / 2 + λ · T² · [KL(z_b → z_a) + KL(z_a → z_b)] + μ · ‖mean_B g_a − mean_B g_b‖², of two views a and b,
    targets (left of each arrow) detached
Source: Self-KD-Lib (methods/ddsgd.py); the authors have not published their code
Choice: `ce_weight` is 1; in the source it is 0.5, because a mean over both views is halved again
Choice: `discrepancy` is "features", the paper's distance of mean features; "entries" is the source's, the squared difference of
    the means over all images and channels. At the weight of the source neither moves much.
Choice: means are those of the whole batch, on any number of GPUs, and both views pass at once
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, distillation, full_precision


def mutual_loss(logits: Tensor, others: Tensor, temperature: float) -> Tensor:
    """T² · KL in both directions, each with a detached target; logits and others (B, K)."""
    return distillation(logits, others.detach(), temperature) + distillation(others, logits.detach(), temperature)


def discrepancy_loss(features: Tensor, others: Tensor, of: Literal["features", "entries"]) -> Tensor:
    """Squared distance of the mean features of two views.

    Args:
        features, others: (B, D) of the whole batch.
        of: "features": of the mean vectors over the images; "entries": of the means over images and channels.
    """
    difference = at_least_float32(features).mean(dim=0) - at_least_float32(others).mean(dim=0)
    return difference.square().sum() if of == "features" else difference.mean().square()


class DDGSD(Method):
    """Cross-entropy of two views, `mutual_loss` of their logits and `discrepancy_loss` of their pooled features.

    Args:
        ce_weight: w.
        kd_weight: λ.
        discrepancy_weight: μ.
        temperature: T.
        discrepancy: whose means are compared.
    """

    views = ("recipe", "recipe")

    ce_weight: float
    kd_weight: float
    discrepancy_weight: float
    temperature: float
    discrepancy: Literal["features", "entries"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        with full_precision(batch.images.device):
            features, others = (batch.share.gather(view) for view in out.pooled.chunk(2))
            discrepancy = discrepancy_loss(features, others, self.discrepancy)
        first, second = out.logits.chunk(2)
        return {
            "ce": self.ce_weight * self.cross_entropy(out.logits, batch.labels),
            "kd": self.kd_weight * mutual_loss(first, second, self.temperature),
            "discrepancy": self.discrepancy_weight * discrepancy,
        }
