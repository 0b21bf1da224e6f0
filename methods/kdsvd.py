"""Distillation of singular vectors: how the main directions of a stage's channels relate to those of the stage before.

Lee, Kim and Song, "Self-supervised knowledge distillation using singular value decomposition", ECCV 2018.

Family: feature
Loss: CE + Σ_{s≥2} Σ over elements (R_s − R_s^t)² / B, R_s = exp(−(V_s[:, None] − V_{s−1}[None, :])² / 8) of the first k right
    singular vectors V_s (C_s × k) of each image's H · W × C_s matrix
Source: RepDistiller (distiller_zoo/KDSVD.py); KD_methods_with_TF has the authors' code
Choice: the decomposition is that of the smaller Gram matrix, in float32. Where its gradient is not finite it is 0; gradients are
    not clipped, as the authors do, to the norm of those of the cross-entropy.
Fault: the sign of a singular vector is arbitrary, so the original's target differs from image to image for no reason. Here each
    vector's entries sum to a positive number.
Fault: mdistiller decomposes (C · H) × W matrices, which mix channels and rows; they are not those of the paper.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import normalised, paired


def singular_vectors(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors of each image's H · W × C matrix, with the signs that make their entries' sums positive.

    Args:
        x: (B, C, H, W).
        count: of vectors; at most min(C, H · W) are returned.

    Returns:
        Vectors (B, C, count) and singular values (B, count), the largest first. Vectors of a map of zeros are 0.
    """
    rows = at_least_float32(x).flatten(2)  # (B, C, H · W): its left vectors are the right ones of the matrix above
    wide = rows.shape[1] > rows.shape[2]
    gram = rows.transpose(1, 2) @ rows if wide else rows @ rows.transpose(1, 2)
    if gram.requires_grad:
        gram.register_hook(_finite)
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(1)[:, :count].clamp(min=0).sqrt(), vectors.flip(2)[:, :, :count]
    if wide:
        vectors = normalised(rows @ vectors)
    # A map of zeros has no directions; the decomposition returns some.
    vectors = vectors * (values > 0).unsqueeze(1)
    return vectors * torch.where(vectors.sum(dim=1, keepdim=True) < 0, -1.0, 1.0), values


def _finite(gradient: Tensor | None) -> Tensor | None:
    # Equal singular values: their vectors are not unique and have no derivative.
    return None if gradient is None else gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def aligned(vectors: Tensor, target: Tensor) -> Tensor:
    """For each vector of the teacher the student's of largest |cosine|, turned to its side.

    Args:
        vectors, target: (B, C, k') and (B, C, k).

    Returns:
        (B, C, k).
    """
    cosines = vectors.transpose(1, 2) @ target
    nearest = cosines.abs().argmax(dim=1, keepdim=True)
    signs = cosines.gather(1, nearest).sign().detach()
    return vectors.gather(2, nearest.expand(-1, vectors.shape[1], -1)) * signs


def relation(vectors: Tensor, before: Tensor) -> Tensor:
    """exp(−(v_i − w_j)² / 8) for all pairs of entries of the vectors of two stages (B, C, k) and (B, C', k): (B, C, C', k)."""
    return torch.exp(-(vectors.unsqueeze(2) - before.unsqueeze(1)).square() / 8)


def svd_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], k: int) -> Tensor:
    """Squared differences of the relations of neighbouring stages, summed over their elements and averaged over the batch.

    Args:
        maps, targets: (B, C_s, H_s, W_s) of at least two stages, of equal widths in both networks; resolutions may differ.
        k: singular vectors of the teacher; the student's are chosen among its first k + 3.
    """
    ours, theirs = [], []
    for x, target in zip(maps, targets, strict=True):
        wanted, values = singular_vectors(target, k)
        scale = normalised(values).unsqueeze(1)
        theirs.append(wanted * scale)
        ours.append(aligned(singular_vectors(x, k + 3)[0], wanted) * scale)
    differences = [
        relation(*reversed(x)) - relation(*reversed(t))
        for x, t in zip(itertools.pairwise(ours), itertools.pairwise(theirs), strict=True)
    ]
    return torch.stack([d.square().sum() / len(d) for d in differences]).sum()


class KDSVD(Method):
    """Cross-entropy and `svd_loss` of all stages, paired from the deepest.

    Args:
        svd_weight: of `svd_loss`.
        k: singular vectors that are compared.
        kd_weight, temperature: of knowledge distillation on the logits.
    """

    needs_teacher = True

    svd_weight: float
    k: int
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        if self.k < 1:
            raise RunError(f"KDSVD.k must be a positive integer, not {self.k}")
        ours, theirs = ([width for width, *_ in self.stage_shapes(net)] for net in (self.student, self.teacher))
        if any(a != b for a, b in paired(ours, theirs)):
            raise RunError(
                "kdsvd needs a teacher whose stages have as many channels as the student's, counted from the deepest: the "
                f"student's have {_listed(ours)}, the teacher's {_listed(theirs)}"
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "logits", "stages")
        maps, targets = zip(*paired(out.stages, taught.stages), strict=True)
        with full_precision(batch.images.device):
            difference = svd_loss(maps, targets, self.k)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "svd": self.svd_weight * difference,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }


def _listed(widths: Sequence[int]) -> str:
    *first, last = map(str, widths)
    return f"{', '.join(first)} and {last}" if first else last
