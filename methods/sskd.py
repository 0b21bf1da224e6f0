"""SSKD: the student learns which rotated image the teacher takes for a copy of which image, and its logits on both.

Xu, Liu, Li and Loy, "Knowledge distillation meets self-supervision", ECCV 2020.

Family: relation
Loss: w_ce · CE(z, y) + w_kd · KL_T(zᵗ → z) on images as they are + w_r · mean of KL_T(zᵗ → z) over kept rotated images
    + w_s · mean over kept rotated images i of τ² · KL(softmax(cᵗ_i / τ) ‖ softmax(c_i / τ)), c_ij the cosine of rotated image i and
    image j as it is, of projected pooled features; KL_T(t → z) = T² · KL(softmax(t / T) ‖ softmax(z / T)), τ = ½
Source: the authors' code (student.py)
Choice: the teacher's head is trained by a run of its own, `sskd_head`, once for each teacher, with the network frozen, and on a
    quarter of the budget, as 60 of the authors' 240 epochs. It is cost of the teacher, as its training is, and the student has
    the budget of any other method.
Choice: each rotated copy of an image is augmented on its own, as in the authors' code; theirs has one flip for all four
Choice: kept are the images that the teacher gets right and a share of the others, in which it ranks the right answer highest;
    of equal ranks the one with the larger score comes first, which the authors leave to the sorting
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, Phase, RunError, at_least_float32, distillation, full_precision
from kdbench.method.connectors import normalised
from kdbench.method.logits import divergence_of_each
from kdbench.method.rotations import ROTATIONS, check_square, turned


def similarities(projected: Tensor) -> Tensor:
    """Cosine of each rotated image with each image as it is, (3 · B, B); projected features (4 · B, D) in blocks of B."""
    rows = normalised(at_least_float32(projected))
    own = rows[: len(rows) // ROTATIONS]
    return rows[len(own) :] @ own.T


def originals(images: int, device: torch.device) -> Tensor:
    """For each rotated image the place of the one it was made of, (3 · B,), B = `images`."""
    return torch.arange(images, device=device).repeat(ROTATIONS - 1)


def head_loss(projected: Tensor) -> Tensor:
    """Cross-entropy of the rows of `similarities` with the image that each was made of; (4 · B, D) in blocks of B."""
    cosines = similarities(projected)
    return F.cross_entropy(cosines, originals(cosines.shape[1], cosines.device))


@torch.no_grad()
def kept(scores: Tensor, answers: Tensor, ratio: float) -> Tensor:
    """True for the rows whose right answer has the highest score, and for a share `ratio` of the others, rounded down.

    Of the others those come first in which fewer scores are above that of the right answer, and among these those in which
    the right answer has the larger share of the softmax.

    Args:
        scores: (N, M).
        answers: (N,), a column for each row.
    """
    own = scores.gather(1, answers.unsqueeze(1))
    rank = (scores > own).sum(dim=1)
    shares = F.log_softmax(at_least_float32(scores), dim=1).gather(1, answers.unsqueeze(1)).squeeze(1)
    order = shares.argsort(descending=True)
    order = order[rank[order].argsort(stable=True)]
    right = (rank == 0).sum()
    count = right + (ratio * (len(scores) - right).double()).floor()
    return order.argsort() < count


def kept_loss(scores: Tensor, target: Tensor, temperature: float, keep: Tensor) -> Tensor:
    """T² · KL(softmax(target / T) ‖ softmax(scores / T)), averaged over the rows of `keep`; 0 if there are none.

    Args:
        scores, target: (N, M) of student and teacher.
        keep: (N,) bool.
    """
    of_each = divergence_of_each(scores / temperature, target.detach() / temperature)
    return temperature**2 * (of_each * keep).sum() / keep.sum().clamp(min=1)


class SSKD(Method):
    """Cross-entropy and divergences from the teacher: of logits, of logits on rotated images, and of similarities.

    Args:
        part: "transfer" trains the student with the head of the teacher's run; "head" trains the head alone, after which the
            student is its teacher and is kept with the head.
        ce_weight, kd_weight, rotated_weight, similarity_weight: of the terms.
        temperature: T of both divergences of logits.
        similarity_temperature: τ.
        rotated_ratio, similarity_ratio: shares of the images that the teacher gets wrong that are kept.
    """

    needs_teacher = True
    views = ("recipe", "recipe", "recipe", "recipe")

    part: Literal["transfer", "head"]
    ce_weight: float
    kd_weight: float
    rotated_weight: float
    similarity_weight: float
    temperature: float
    similarity_temperature: float
    rotated_ratio: float
    similarity_ratio: float

    def setup(self) -> None:
        check_square("sskd", self.info.image_shape)
        if self.part == "head":
            self.become_teacher()
            self.head = _head(self.student.fc.in_features)
            return
        trained = self.teachers[0].method
        if not isinstance(trained, SSKD):
            raise RunError("sskd needs a teacher with a head, which a run of sskd_head trains")
        self.head = _head(self.student.fc.in_features)
        self.teacher_head = copy.deepcopy(trained.head).requires_grad_(False)

    def phases(self) -> Sequence[Phase]:
        if self.part == "transfer":
            return (Phase(),)
        return (Phase("head", None, self.fit_head, self.head.parameters(), passes=0),)

    def fit_head(self, batch: Batch) -> dict[str, Tensor]:
        taught = self.teach_images(turned(batch.images), "pooled")
        with full_precision(batch.images.device):
            return {"head": head_loss(batch.share.gather(self.head(taught.pooled)))}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        images, share = turned(batch.images), batch.share
        out, taught = self.student(images, features=True), self.teach_images(images, "logits", "pooled")
        with full_precision(images.device):
            # A row of similarities is as long as the whole batch, of which a share of the images is kept.
            projected = share.gather(self.head(out.pooled))
            with torch.no_grad():
                target = similarities(share.gather(self.teacher_head(taught.pooled)))
            ours = similarities(projected)
        images_of_all = target.shape[1]
        z, t = (share.gather(at_least_float32(logits)) for logits in (out.logits, taught.logits))
        labels = share.gather(batch.labels)[images_of_all:]
        right = kept(t[images_of_all:], labels, self.rotated_ratio)
        found = kept(target, originals(images_of_all, target.device), self.similarity_ratio)
        own = len(batch.labels) // ROTATIONS
        rotated = kept_loss(z[images_of_all:], t[images_of_all:], self.temperature, right)
        similarity = kept_loss(ours, target, self.similarity_temperature, found)
        return {
            "ce": self.ce_weight * self.cross_entropy(out.logits[:own], batch.labels[:own]),
            "kd": self.kd_weight * distillation(out.logits[:own], taught.logits[:own], self.temperature),
            "rotated": self.rotated_weight * rotated,
            "similarity": self.similarity_weight * similarity,
        }


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
