"""Cumulative spatial KD: each cell of the student's map learns the class that the teacher sees there, and later the whole image's.

Zhao, Song and Liang, "Cumulative spatial knowledge distillation for vision transformers", ICCV 2023.

Family: logit
Loss: (1 − α) · CE(z, y) + α · CE(d, argmax tᵍ) + w · mean over cells of CE(s_c, argmax(r · t_c + (1 − r) · tᵍ)), r = 1 − e/E with e
    complete epochs of E, d logits of a second head, s_c and t_c logits of the classifiers at each cell, tᵍ the mean of t_c
Source: the authors' code (CSKD, cskd/cskd.py)
Choice: `form` is "hard", the most likely class; "soft" has T² · KL with the teacher's softmax in its place, averaged over images
    and cells.
Choice: the second head is a linear layer on the pooled feature, in place of one on a distillation token, which the backbones here
    do not have, and is dropped at the end.
Choice: any student will do, since the cells of a convolutional network are classified as those of a transformer are.
Choice: where the student has more cells than the teacher their logits are averaged, 14×14 to 7×7 as in the paper, and the other
    way round.
Fault: the authors' soft form divides the sum over cells by the images alone, and the second head's term by images and classes;
    `form` "published" does so.
"""

from __future__ import annotations

from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision
from kdbench.method.connectors import equal_resolution

Form = Literal["hard", "soft", "published"]


def imitation(logits: Tensor, target_logits: Tensor, form: Form, temperature: float) -> Tensor:
    """Summed loss of rows of logits (N, K) against those of the teacher (N, K): cross-entropy with its class, or T² · KL."""
    logits, target_logits = at_least_float32(logits), at_least_float32(target_logits)
    if form == "hard":
        return F.cross_entropy(logits, target_logits.argmax(dim=1), reduction="sum")
    log_p = F.log_softmax(logits / temperature, dim=1)
    log_q = F.log_softmax(target_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="sum", log_target=True)


def second_head_loss(logits: Tensor, cells: Tensor, form: Form, temperature: float) -> Tensor:
    """`imitation` of the mean of the teacher's cells, averaged over the images, or over images and classes as published.

    Args:
        logits: (B, K) of the student's second head.
        cells: (B, K, H, W) of the teacher.
    """
    total = imitation(logits, cells.mean(dim=(2, 3)), form, temperature)
    return total / (logits.numel() if form == "published" else len(logits))


def cells_loss(logits: Tensor, cells: Tensor, nearness: float, form: Form, temperature: float) -> Tensor:
    """`imitation` by each cell of a mixture of the teacher's cell and mean, averaged over cells, or over images alone as published.

    Args:
        logits, cells: (B, K, H, W) of student and teacher; the larger resolution is averaged to the smaller.
        nearness: r, the share of the cell in the mixture.
    """
    logits, cells = equal_resolution(logits, cells)
    target = nearness * cells + (1 - nearness) * cells.mean(dim=(2, 3), keepdim=True)
    rows, targets = (x.movedim(1, -1).flatten(0, 2) for x in (logits, target))
    total = imitation(rows, targets, form, temperature)
    return total / (len(logits) if form == "published" else logits[:, 0].numel())


class CSKDSpatial(Method):
    """Cross-entropy, `second_head_loss`, and `cells_loss`.

    Args:
        alpha: α, share of `second_head_loss` in the image's loss.
        weight: of `cells_loss`.
        form: what is learnt of the teacher.
        temperature: T of the soft forms.
    """

    needs_teacher = True

    alpha: float
    weight: float
    form: Literal["hard", "soft", "published"]
    temperature: float

    def setup(self) -> None:
        self.head = nn.Linear(self.student.fc.in_features, self.info.classes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=("unpooled",))
        with full_precision(batch.labels.device):
            second = self.head(at_least_float32(out.pooled))
            cells = _at_each_cell(self.student.fc, out.unpooled)
            theirs = _at_each_cell(self.teacher.fc, cast(Tensor, self.teach(batch, "unpooled").unpooled))
        nearness = 1 - (batch.epoch - 1) / max(self.info.epochs, batch.epoch)
        return {
            "ce": (1 - self.alpha) * self.cross_entropy(out.logits, batch.labels),
            "second": self.alpha * second_head_loss(second, theirs, self.form, self.temperature),
            "cells": self.weight * cells_loss(cells, theirs, nearness, self.form, self.temperature),
        }


def _at_each_cell(fc: nn.Linear, x: Tensor) -> Tensor:
    """Logits (B, K, H, W) of a classifier at each cell of a map (B, C, H, W)."""
    return F.linear(at_least_float32(x).movedim(1, -1), fc.weight, fc.bias).movedim(-1, 1)
