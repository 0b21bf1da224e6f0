"""Wasserstein distillation of logits: mass that the student has at the wrong class costs less where the classes are similar.

Lv, Yang and Li, "Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation", NeurIPS 2024 (WKD-L).

Family: logit
Loss: CE − pᵗ_y log p_y (T = 1) + w · Σ_jk Q_jk C_jk over the classes other than y, C = 1 − exp(−κ d) + 1e-8, Q the Sinkhorn plan
    from softmax(z / T) to softmax(zᵗ / T), d_jk = 1 − similarity of the classes j and k to the teacher
Source: WKD (mdistiller/distillers/WKD.py, tools/generate_cost_matrix.py)
Choice: similarities are the cosines between the rows of the teacher's classifier, which need no pass over the images.
    WKDL.cost='cka' has those of the published results: linear CKA of the features of two classes, the i-th image of one paired
    with the i-th of the other.
Choice: CKA needs equally many images of each class, and the first ones of the larger classes are taken.
Choice: w falls from epoch 150 of the authors' 240 on, by step and not by epoch, as in wkd_f. The default of their code, used on
    ImageNet, is WKDL.decay_from=0.0.
Choice: w and T are the authors' for resnet32x4 to resnet8x4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision
from kdbench.method.connectors import normalised
from kdbench.methods.nkd import normalised_parts
from kdbench.methods.wkd_f import falling

SHARPNESS = 0.05
"""λ of the entropic plan: its kernel is exp(−C / λ)."""
ITERATIONS = 10
EPSILON = 1e-8
"""Added to all costs, and to the denominators of Sinkhorn's iterations."""
LARGEST = 2**25
"""Products of two images that are computed at once for CKA, 128 MiB in float32."""


def transport_cost(logits: Tensor, target_logits: Tensor, labels: Tensor, cost: Tensor) -> Tensor:
    """Cost of the entropic plan between the softmaxes over the classes other than the label, averaged over the batch.

    The plan of an image has no mass in the row and the column of its label, so all images share one kernel (K, K).

    Args:
        logits, target_logits: (B, K) of student and teacher, over the temperature.
        labels: (B,) classes.
        cost: (K, K), from the student's class to the teacher's.
    """
    label = F.one_hot(labels, logits.shape[1]).bool()
    p, q = (F.softmax(at_least_float32(each).masked_fill(label, -torch.inf), dim=1) for each in (logits, target_logits))
    kernel = (-cost / SHARPNESS).exp()
    u = (~label).to(p.dtype) / (logits.shape[1] - 1)
    for _ in range(ITERATIONS):
        v = q / (u @ kernel + EPSILON)
        u = p / (v @ kernel.T + EPSILON)
    return ((u @ (kernel * cost)) * v).sum(dim=1).mean()


def costs(distances: Tensor, sharpening: float) -> Tensor:
    """Costs 1 − exp(−κ d) + 1e-8 of distances d (K, K) between classes."""
    return 1 - (-sharpening * distances).exp() + EPSILON


def weight_distances(weight: Tensor) -> Tensor:
    """1 − cosine between the rows of a classifier's weight (K, D), as (K, K)."""
    rows = normalised(at_least_float32(weight))
    return 1 - rows @ rows.T


def cka_distances(features: Tensor) -> Tensor:
    """1 − linear CKA between the features of the classes, (K, N, D) for N images of each; (K, K).

    Kornblith, Norouzi, Lee and Hinton, "Similarity of neural network representations revisited", ICML 2019.
    """
    features = features - features.mean(dim=1, keepdim=True)
    classes, images, _ = features.shape
    products = features.new_zeros(classes, classes)
    for rows in features.split(max(1, LARGEST // (classes * images)), dim=1):
        grams = (rows @ features.transpose(1, 2)).flatten(1)
        products += grams @ grams.T
    norms = products.diagonal().sqrt().clamp(min=1e-12)
    return 1 - products / (norms.unsqueeze(1) * norms)


class WKDL(Method):
    """Cross-entropy, the target class's part of nkd, and `transport_cost`, whose weight falls to 0 at the end.

    Args:
        weight: of `transport_cost`.
        temperature: T, of `transport_cost`.
        cost: similarities of classes: "fc", between the rows of the teacher's classifier, or "cka", of its features.
        sharpening: κ of the costs.
        decay_from: share of the training after which the weight falls by half a cosine.
    """

    needs_teacher = True

    class_costs: Tensor

    weight: float
    temperature: float
    cost: Literal["fc", "cka"]
    sharpening: float
    decay_from: float

    def setup(self) -> None:
        distances = weight_distances(self.teacher.fc.weight.detach())
        self.register_buffer("class_costs", costs(distances, self.sharpening))

    def prepare(self, batches: Iterable[Batch]) -> None:
        if self.cost == "fc":
            return
        pairs = [
            (at_least_float32(self.teach_images(batch.images, "pooled").pooled), batch.labels) for batch in batches
        ]
        features, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        counts = torch.bincount(labels, minlength=self.info.classes)
        images = int(counts.min())
        if images < 2:
            raise RunError(
                f"wkd_l with WKDL.cost='cka' needs two training images of each class, and class {int(counts.argmin())} has "
                f"{images}; take WKDL.cost='fc'"
            )
        by_class = features[labels.argsort(stable=True)].split(counts.tolist())
        with full_precision(features.device):
            distances = cka_distances(torch.stack([each[:images] for each in by_class]))
        self.class_costs.copy_(costs(distances, self.sharpening))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        confidence, _ = normalised_parts(logits, target, batch.labels, 1.0)
        with full_precision(batch.images.device):
            cost = transport_cost(logits / self.temperature, target / self.temperature, batch.labels, self.class_costs)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "target": confidence.mean(),
            "wkd": self.weight * falling(batch.progress, self.decay_from) * cost,
        }
