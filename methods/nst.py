"""Neuron selectivity transfer: the student's channels are distributed over the pixels as the teacher's are.

Huang and Wang, "Like what you like: knowledge distill via neuron selectivity transfer", arXiv 1707.01219, 2017.

Family: feature
Loss: CE + 50 · Σ_s (mean k(F_s^t, F_s^t) + mean k(F_s, F_s) − 2 mean k(F_s, F_s^t)), k(A, B)_{b,i,j} = (A_{b,i} · B_{b,j})² of
    the flattened channels, each L2-normalised
Source: RepDistiller (distiller_zoo/NST.py)
Choice: `stages` is "all" by default, as in RepDistiller; "deepest" is the authors' ImageNet code.
Choice: `preactivation` is False by default, as in RepDistiller; True takes the maps before the last ReLU of a stage, as the
    authors' ImageNet code does. That code also leaves out the teacher's own term, which has no gradient; here it always counts.
Fault: the original holds B × C × C^t × H · W products three times, more than 6 GB for resnet32x4 and 64 images; here they are
    batched matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kdbench.method import Batch, Method, full_precision, kd_term
from kdbench.method.connectors import equal_resolution, normalised, paired


def kernel_mean(x: Tensor, y: Tensor) -> Tensor:
    """Mean of (x_{b,i} · y_{b,j})² over images and pairs of channels; x (B, C, N), y (B, C', N)."""
    return (x @ y.transpose(1, 2)).square().mean()


def selectivity_loss(maps: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sum over stages of the squared maximum mean discrepancy of the channels, kernel (x · y)².

    A channel of zeros has neither value nor gradient.

    Args:
        maps, targets: (B, C_s, H_s, W_s) for each stage; widths may differ, and the larger map is averaged to the resolution
            of the smaller.
    """
    terms = []
    for pair in zip(maps, targets, strict=True):
        x, y = (normalised(each.flatten(2), dim=2) for each in equal_resolution(*pair))
        terms.append(kernel_mean(y, y) + kernel_mean(x, x) - 2 * kernel_mean(x, y))
    return torch.stack(terms).sum()


class NST(Method):
    """Cross-entropy and `selectivity_loss`.

    Args:
        selectivity_weight: of `selectivity_loss`.
        stages: all, paired from the deepest, or the deepest alone.
        preactivation: compare the maps before the last ReLU of a stage.
        kd_weight, temperature: of knowledge distillation on the logits.
    """

    needs_teacher = True

    selectivity_weight: float
    stages: Literal["all", "deepest"]
    preactivation: bool
    kd_weight: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        kind = "preactivations" if self.preactivation else "stages"
        out = self.student(batch.images, features=("preactivations",) if self.preactivation else True)
        taught = self.teach(batch, "logits", kind)
        pairs = paired(getattr(out, kind), getattr(taught, kind))
        maps, targets = zip(*pairs[-1:] if self.stages == "deepest" else pairs, strict=True)
        with full_precision(batch.images.device):
            selectivity = selectivity_loss(maps, targets)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "selectivity": self.selectivity_weight * selectivity,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
