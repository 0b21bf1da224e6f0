"""MLKD: the teacher's probabilities at several temperatures, image by image, between classes and between images, in two views.

Jin, Wang and Lin, "Multi-level logit distillation", CVPR 2023.

Family: logit
Loss: 0.1 · (CE(z_w) + CE(z_s)) + 0.9 · (m · I_w{4, 3, 5, 2, 6} + I_s{4, 3, 5} + I_w{2, 6} + m_c · C_w + m · B_w),
    I{τ…} = Σ_τ τ² KL_τ, C = Σ_τ ‖PᵀP − PᵗᵀPᵗ‖² / K, B = Σ_τ ‖PPᵀ − PᵗPᵗᵀ‖² / B, P = softmax(z / τ),
    of the weak view (w, the recipe's) and the strong one (s)
Source: the authors' code (Jin-Ying/Multi-Level-Logit-Distillation, distillers/KD_ours.py)
Choice: `mask` is "share" as in the authors' code, where means over all images and classes are multiplied by the share of those
    that the teacher is unsure of, about ½. "image" is what the code seems to intend: a mean in which only the unsure ones
    count; "off" is without m.
Choice: in the sum for the strong view, the authors' code takes the weak view at the temperatures 2 and 6
    (`weak_temperatures`). MLKD.strong_temperatures=(4.0,3.0,5.0,2.0,6.0) MLKD.weak_temperatures=() is the strong view at all.
Choice: relations between classes and between images are those of the weak view. The authors' code computes them for the strong
    view as well, and does not use them.
Choice: the authors' weights belong to batches of 64 images in each view, as B grows with the number of images and C with its
    square. They stay as they are; MLKD.reference_batch=64 scales both to that size.
Choice: the views pass through the student one after the other, as in the authors' code, so that batch normalisation sees one of
    them at a time.
Choice: the strong view is that of `Strong.*`; the authors' has two operations of RandAugment at random strengths, then cutout,
    which is Strong.random_magnitude=True Strong.magnitude=30.
Choice: `standardise` is off; on, the logits of the divergences are standardised, and those of C and B stay as they are
    (`methods=ls_mlkd`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, full_precision
from kdbench.method.logits import divergence_of_each, standardised

Mask = Literal["share", "image", "off"]


def divergences(logits: Tensor, target_logits: Tensor, temperatures: Sequence[float]) -> Tensor:
    """T² · KL of each image at each temperature T, (number of temperatures, B); logits (B, K) of student and teacher."""
    return torch.stack([t**2 * divergence_of_each(logits / t, target_logits / t) for t in temperatures])


def relation_errors(rows: Tensor, target: Tensor) -> Tensor:
    """Squared errors of each row's products with all rows, summed over these.

    Args:
        rows, target: (…, R, D), of student and teacher.

    Returns:
        (…, R)
    """
    return (rows @ rows.mT - target @ target.mT).square().sum(dim=-1)


def lower_half(values: Tensor) -> Tensor:
    """True where one of `values` (N,) is at most their median, which lies between the middle two of an even number."""
    return values <= values.quantile(0.5)


def masked_mean(values: Tensor, mask: Tensor, how: Mask) -> Tensor:
    """Mean of `values` (N,), of which `mask` (N,) chooses some.

    Args:
        how: "share": the mean of all, times the share that is chosen; "image": those that are not chosen count as 0;
            "off": the mean of all.
    """
    share = mask.to(values.dtype)
    return {"share": values.mean() * share.mean(), "image": (values * share).mean(), "off": values.mean()}[how]


def relation_losses(
    logits: Tensor, target_logits: Tensor, temperatures: Sequence[float], mask: Mask, reference_batch: int = 0
) -> tuple[Tensor, Tensor]:
    """Losses of the relations between classes and between images, summed over the temperatures, without a factor T².

    Args:
        logits, target_logits: (B, K) of the whole batch, of student and teacher.
        mask: see `masked_mean`; chosen are the classes of the least summed probability, and the least sure images.
        reference_batch: number of images for which the weights were chosen; 0: not scaled by the number of images.
    """
    p, q = (
        torch.stack([F.softmax(each / t, dim=1) for t in temperatures])
        for each in (at_least_float32(logits), at_least_float32(target_logits))
    )
    certain = F.softmax(at_least_float32(target_logits), dim=1)
    between_classes = relation_errors(p.mT, q.mT).sum(dim=0)
    between_images = relation_errors(p, q).sum(dim=0)
    scale = reference_batch / len(logits) if reference_batch else 1.0
    return (
        scale**2 * masked_mean(between_classes, lower_half(certain.sum(dim=0)), mask),
        scale * masked_mean(between_images, unsure(target_logits), mask),
    )


def unsure(target_logits: Tensor) -> Tensor:
    """True for the images whose largest probability is at most the median; logits (B, K) of the whole batch."""
    return lower_half(F.softmax(at_least_float32(target_logits), dim=1).amax(dim=1))


class MLKD(Method):
    """Cross-entropies of both views, divergences from the teacher in both, and the relations within the weak view.

    Args:
        ce_weight: of the cross-entropies' sum.
        kd_weight: of all other terms.
        strong_temperatures: of the strong view's divergences; the weak view has them too.
        weak_temperatures: further ones of the weak view, which has another divergence at them in place of the strong view's.
        mask: how the share of images and classes enters that the teacher is unsure of.
        reference_batch: images for which the weights of the relations were chosen; 0: not scaled.
        standardise: whether logits are standardised for the divergences (Sun et al., CVPR 2024).
    """

    needs_teacher = True
    views = ("recipe", "strong")

    ce_weight: float
    kd_weight: float
    strong_temperatures: tuple[float, ...]
    weak_temperatures: tuple[float, ...]
    mask: Literal["share", "image", "off"]
    reference_batch: int
    standardise: bool

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = [self.student(images) for images in batch.views()]
        target = self.teach(batch, "logits").logits
        with full_precision(batch.images.device):
            # Medians and relations are those of the whole batch, on however many GPUs it lies.
            weak, strong = (batch.share.gather(at_least_float32(each)) for each in out)
            weak_target, strong_target = batch.share.gather(at_least_float32(target)).chunk(2)
            temperatures = (*self.strong_temperatures, *self.weak_temperatures)
            classes, images = relation_losses(weak, weak_target, temperatures, self.mask, self.reference_batch)
            chosen = unsure(weak_target)
            if self.standardise:
                weak, strong, weak_target, strong_target = map(standardised, (weak, strong, weak_target, strong_target))
            of_weak = divergences(weak, weak_target, temperatures)
            of_strong = divergences(strong, strong_target, self.strong_temperatures)
            again = of_weak[len(self.strong_temperatures) :]
            kd = masked_mean(of_weak.sum(dim=0), chosen, self.mask) + (of_strong.sum() + again.sum()) / len(weak)
        return {
            "ce": self.ce_weight * len(out) * self.cross_entropy(torch.cat(out), batch.labels),
            "kd": self.kd_weight * kd,
            "classes": self.kd_weight * classes,
            "images": self.kd_weight * images,
        }
