"""Scale decoupled distillation: the regions of an image have logits of their own, and each is distilled.

Wei, Luo and Luo, "Scale decoupled distillation", CVPR 2024.

Family: logit
Loss: c · CE + k · w(e) · mean over images and regions r of v_r · L(z_r, zᵗ_r), z_r = each network's own classifier on the average
    of region r of its deepest map, L = that of KD, DKD or NKD, v_r = 2 where the teacher is right about one of the region and
    the whole image, else 1
Source: the authors' code (SDD-CVPR2024, distillers/KD.py, SDD_DKD.py and SDD_nkd.py)
Choice: `scales` is (1, 2), the whole map and its quarters, as for most of the authors' pairs of one family; they add 4, for a
    4 × 4 grid, where student and teacher are of different families.
Choice: with a base of "nkd", the label's class has no share in the part of the other classes; with `published_mask` it has,
    as in the code.
Fault: the original's NKD writes 1 into the mask of the other classes where 0 belongs, so that this part is the ordinary soft
    cross-entropy over all classes.
Fault: the original replaces a loss that is NaN by 0; here it stays NaN and is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision
from kdbench.method.logits import divergence_of_each, warm_up
from kdbench.methods.dkd import decoupled
from kdbench.methods.nkd import normalised_parts


def regions(height: int, width: int, scales: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Weights of the pixels of a map in the averages over its regions: s × s of them for each scale s.

    Regions overlap where s does not divide the map's size, as in adaptive average pooling.

    Returns:
        (height · width, R), both row by row.
    """
    pixels = torch.eye(height * width, device=device).unflatten(1, (height, width))
    return torch.cat([F.adaptive_avg_pool2d(pixels, scale).flatten(1) for scale in scales], dim=1)


def region_logits(x: Tensor, classifier: Callable[[Tensor], Tensor], scales: Sequence[int]) -> Tensor:
    """Logits (B, R, K) of the regions of a map (B, C, H, W): the classifier (…, C) → (…, K) of each region's average."""
    # A product and no pooling, whose gradient has no deterministic form on a GPU.
    weights = regions(x.shape[2], x.shape[3], scales, x.device)
    with full_precision(x.device):
        x = at_least_float32(x)
        return classifier((x.flatten(2) @ weights.to(x.dtype)).transpose(1, 2))


def sdd_loss(losses: Tensor, target_logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of the losses of all regions, twice those where the teacher is right about one of the region and the whole image.

    Args:
        losses: (B, R).
        target_logits: (B, R, K), of the teacher; region 0 is the whole image.
        labels: (B,) classes.
    """
    right = target_logits.argmax(dim=2) == labels[:, None]
    return (losses * (1 + (right != right[:, :1]).to(losses.dtype))).mean()


class SDD(Method):
    """Cross-entropy, and the base's loss of all regions.

    Args:
        base: method whose loss is computed for each region.
        scales: cells a side of the grids of regions; the first is 1, the whole map.
        ce_weight, kd_weight: of the two terms.
        warmup_epochs: epochs over which the second one comes to its full weight; 0: without a warm-up.
        temperature: T.
        alpha, beta: of DKD's parts.
        gamma: of NKD's second part.
        published_mask: let the label's class into NKD's second part.
    """

    needs_teacher = True

    base: Literal["kd", "dkd", "nkd"]
    scales: tuple[int, ...]
    ce_weight: float
    kd_weight: float
    warmup_epochs: int
    temperature: float
    alpha: float
    beta: float
    gamma: float
    published_mask: bool

    def setup(self) -> None:
        if self.scales[:1] != (1,) or min(self.scales) < 1:
            raise RunError(
                f"SDD.scales={self.scales} must begin with 1, the whole map, and have positive integers only"
            )
        for whose, network in (("student", self.student), ("teacher", self.teacher)):
            width, reads = self.stage_shapes(network)[-1][0], network.fc.in_features
            if width != reads and not network.neck_modules():
                raise RunError(
                    f"sdd needs a {whose} whose classifier reads the average of its deepest map: the map has {width} "
                    f"channels, and the classifier reads {reads} numbers"
                )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=("unpooled",)), self.teach(batch, "unpooled")
        logits = region_logits(out.unpooled, self.student.fc, self.scales)
        target = region_logits(cast(Tensor, taught.unpooled), self.teacher.fc, self.scales)
        loss = sdd_loss(self.of_regions(logits, target, batch.labels), target, batch.labels)
        return {
            "ce": self.ce_weight * self.cross_entropy(out.logits, batch.labels),
            "sdd": self.kd_weight * warm_up(batch.epoch, self.warmup_epochs) * loss,
        }

    def of_regions(self, logits: Tensor, target_logits: Tensor, labels: Tensor) -> Tensor:
        """The base's loss of each region, (B, R), from logits (B, R, K) and labels (B,)."""
        images, count, _ = logits.shape
        labels = labels[:, None].expand(images, count).flatten()
        z, t = logits.flatten(0, 1), target_logits.flatten(0, 1)
        softened, target = z / self.temperature, t / self.temperature
        squared = self.temperature**2
        losses: Tensor
        if self.base == "kd":
            losses = squared * divergence_of_each(softened, target)
        elif self.base == "dkd":
            tckd, nckd = decoupled(softened, target, labels)
            losses = squared * (self.alpha * tckd + self.beta * nckd)
        else:
            first, others = normalised_parts(z, t, labels, self.temperature)
            if self.published_mask:
                others = -(target.softmax(dim=1) * softened.log_softmax(dim=1)).sum(dim=1)
            losses = first + self.gamma * squared * others
        return losses.view(images, count)
