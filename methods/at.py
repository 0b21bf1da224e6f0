"""Attention transfer: the student's maps are active at the pixels where the teacher's are.

Zagoruyko and Komodakis, "Paying more attention to attention: improving the performance of convolutional neural networks via
attention transfer", ICLR 2017.

Family: feature
Loss: CE + 1000 · Σ_s mean over (b, i) of (a(F_s) − a(F_s^t))², a(F) = norm over the pixels of (mean over channels of F²)
Source: RepDistiller (distiller_zoo/AT.py), which agrees with the authors' code (szagoruyko/attention-transfer)
Choice: `form` is "squared" by default, as in the authors' code, from which the published numbers come. "norm" is the paper's
    equation without its factor ½: the L2 distance over the pixels. It needs a weight of its own: the paper's β / 2, with β = 1000
    over the number of pixels, is about 2 at 16 × 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, kd_term
from kdbench.method.connectors import equal_resolution, normalised, paired


def attention(x: Tensor) -> Tensor:
    """Mean square over the channels of a map (B, C, H, W), as rows (B, H · W) of length 1; an image of zeros has zeros."""
    return normalised(at_least_float32(x).square().mean(dim=1).flatten(1))


def attention_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], form: Literal["squared", "norm"]) -> Tensor:
    """Sum over stages of the distances between the attentions of student and teacher.

    Args:
        maps, targets: (B, C_s, H_s, W_s) for each stage; widths may differ, and the larger map is averaged to the resolution
            of the smaller.
        form: "squared": mean squared difference over images and pixels; "norm": L2 distance, averaged over the images
            (the paper's equation without ½).
    """
    terms = []
    for x, target in zip(maps, targets, strict=True):
        x, target = equal_resolution(x, target)
        difference = attention(x) - attention(target)
        terms.append(
            difference.square().mean() if form == "squared" else torch.linalg.vector_norm(difference, dim=1).mean()
        )
    return torch.stack(terms).sum()


class AT(Method):
    """Cross-entropy and `attention_loss` of all stages, paired from the deepest.

    Args:
        attention_weight: of `attention_loss`. Rows of length 1 have larger entries where there are fewer pixels: in the form
            "squared", maps of 2 × 2 pixels want a smaller weight than those of 8 × 8.
        form: of the distance.
        kd_weight, temperature: of knowledge distillation on the logits.
    """

    needs_teacher = True

    attention_weight: float
    form: Literal["squared", "norm"]
    kd_weight: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "logits", "stages")
        maps, targets = zip(*paired(out.stages, taught.stages), strict=True)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "attention": self.attention_weight * attention_loss(maps, targets, self.form),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
