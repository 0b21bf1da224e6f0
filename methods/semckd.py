"""SemCKD: every stage of the student imitates all of the teacher's, each as much as the attention of an image says.

Chen, Mei, Zhang, Wang, Wang, Feng and Chen, "Cross-layer distillation with semantic calibration", AAAI 2021.

Family: feature
Loss: CE + KD + w / (B·S) · Σ_b Σ_i Σ_j α_bij · MSE(proj_ij(F_i), F_j^t)_b, α_bi· = softmax over j of q_bi · k_bj
Source: the authors' code (SemCKD), as in the SimKD toolbox
Choice: the attention reads the rows of the B × B similarities of the images of a whole step, on however many GPUs; the authors'
    code takes those of one GPU
Choice: KD has weight 1, as in the authors' code; `kd_weight` 0 leaves it out
Fault: an embedding of zeros gives NaN in the original; here it has the value 0 and no gradient
Fault: each embedding of the original owns a second network that is never used; there is none here
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, Share, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import ConvBN, equal_resolution, normalised


def semckd_loss(errors: Tensor, attention: Tensor) -> Tensor:
    """Mean over images and the student's stages of the errors, weighted by the attention.

    Args:
        errors: (B, S, S^t), of each image, mean square of each pair of stages.
        attention: (B, S, S^t), with sum 1 over the teacher's stages.
    """
    return (attention * errors).sum(dim=2).mean()


def mean_squares(x: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference (B,) of two maps (B, C, H, W), of each image."""
    return (x - target).square().mean(dim=(1, 2, 3))


def similarities(x: Tensor, share: Share) -> Tensor:
    """Inner products of the own maps (b, C, H, W) with those of all images of the step: (b, B)."""
    rows = at_least_float32(x).flatten(1)
    with full_precision(x.device):
        return rows @ share.gather(rows).T


class Embedding(nn.Module):
    """Two linear layers from a row of similarities to a vector of length 1.

    Args:
        images: B, of a step.
    """

    def __init__(self, images: int):
        super().__init__()
        width = images // 4
        self.linear1 = nn.Linear(images, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (b, B/4) of rows (b, B)."""
        with full_precision(x.device):
            return normalised(self.linear2(F.relu(self.linear1(x))))


class Projector(nn.Sequential):
    """1×1, 3×3 and 1×1 convolution, the first two of twice the target's width, with batch normalisation and ReLU."""

    def __init__(self, width: int, target: int):
        middle = 2 * target
        super().__init__(
            ConvBN(width, middle, relu=True),
            ConvBN(middle, middle, 3, relu=True),
            nn.Conv2d(middle, target, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x.device):
            return cast(Tensor, super().forward(x))  # type: ignore[no-untyped-call]


class Calibration(nn.Module):
    """Projectors of all pairs of stages, and the attention between them.

    Args:
        widths, targets: channels of the student's and the teacher's stages.
        images: B, of a step.
        softness: divides the products of queries and keys.
    """

    def __init__(self, widths: Sequence[int], targets: Sequence[int], images: int, softness: float):
        super().__init__()
        self.queries = nn.ModuleList(Embedding(images) for _ in widths)
        self.keys = nn.ModuleList(Embedding(images) for _ in targets)
        self.projectors = nn.ModuleList(
            nn.ModuleList(Projector(width, target) for target in targets) for width in widths
        )
        self.softness = softness

    def attention(self, maps: Sequence[Tensor], targets: Sequence[Tensor], share: Share) -> Tensor:
        """Weight (b, S, S^t) of each of the teacher's stages for each of the student's, from maps of either."""
        queries = torch.stack([e(similarities(x, share)) for e, x in zip(self.queries, maps, strict=True)], dim=1)
        keys = torch.stack([e(similarities(x, share)) for e, x in zip(self.keys, targets, strict=True)], dim=2)
        with full_precision(keys.device):
            return torch.softmax(queries @ keys / self.softness, dim=2)

    def errors(self, maps: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Mean squared error (b, S, S^t) of each pair of stages; of unequal resolutions the larger map is averaged first."""
        rows = []
        for projectors, x in zip(self.projectors, maps, strict=True):
            pairs = [equal_resolution(x, target) for target in targets]
            each = zip(cast("Iterable[Projector]", projectors), pairs, strict=True)
            rows.append([mean_squares(project(ours), theirs) for project, (ours, theirs) in each])
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


class SemCKD(Method):
    """Cross-entropy, KD, and `semckd_loss` over all pairs of stages.

    Args:
        weight: of the loss.
        softness: of the attention; the larger, the more even.
        kd_weight, temperature: of the KD term; none at weight 0.
    """

    needs_teacher = True

    weight: float
    softness: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        images = self.info.batch_size
        if images < 4:
            raise RunError(
                f"semckd needs at least 4 images in a step, for its attention reads all of them, and has {images}"
            )
        widths, targets = ([shape[0] for shape in self.stage_shapes(each)] for each in (self.student, self.teacher))
        self.calibration = Calibration(widths, targets, images, self.softness)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        images = len(batch.share.gather(batch.labels))
        if images != self.info.batch_size:
            raise RunError(
                f"semckd reads the similarities of all {self.info.batch_size} images of a step, and got {images}: "
                "leave Train.accumulate out"
            )
        out, taught = self.student(batch.images, features=True), self.teach(batch)
        attention = self.calibration.attention(out.stages, taught.stages, batch.share)
        errors = self.calibration.errors(out.stages, taught.stages)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "semckd": self.weight * semckd_loss(errors, attention),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
