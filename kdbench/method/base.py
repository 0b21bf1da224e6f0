"""The contract of a distillation method.

A method is one file `methods/NAME.py`: a pure function for each loss, then one subclass of `Method`. Its parameters are
keyword-only arguments of `__init__` and their values stand in `gin/method/NAME.gin`. docs/adding-a-method.md walks
through one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone, Features
from kdbench.method.share import Share
from kdbench.streams import Streams


@dataclass(frozen=True)
class Info:
    """What a method may know of the task it is built for.

    Attributes:
        classes: number of classes K.
        train_labels: (N,) labels of the training images, in the order that `Batch.index` and `Method.sample` count in.
        image_shape: (channels, height, width) of one image.
        label_smoothing: of the recipe; `Method.cross_entropy` applies it.
        device: where the run trains.
    """

    classes: int
    train_labels: Tensor
    image_shape: tuple[int, int, int]
    label_smoothing: float
    device: torch.device


@dataclass(frozen=True)
class Batch:
    """One step's images, on the training device, normalised and augmented; of several GPUs, this one's share of them.

    Attributes:
        images: (B, C, H, W) float32.
        labels: (B,) int64.
        index: (B,) int64, each image's place among the N training images.
        step: number of the step, from 0.
        streams: random streams of this step, for what the method draws itself: `batch.streams("negatives", device=d)`.
            They give the same on every GPU: draw for the whole batch, and take `share.own` of it.
        share: leads from this GPU's images to the whole batch and back, for terms that are no mean over single images.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    step: int
    streams: Streams
    share: Share = field(default_factory=Share)


class Method(nn.Module):
    """Base class of all methods. Owns the student, the frozen teacher and whatever modules and buffers a subclass adds.

    All parameters of the module are trained by the run's one optimiser and all its state goes into the checkpoint; the
    teacher is neither trained nor saved with it, stays in evaluation mode and never gets a gradient.

    Args:
        student: the network to train.
        teacher: a finished network, or None where `needs_teacher` is false.
        info: the task.
    """

    needs_teacher: ClassVar[bool] = False
    images_per_anchor: ClassVar[int] = 1
    """Images that `sample` returns for each anchor; all of them count against the budget."""

    def __init__(self, student: Backbone, teacher: Backbone | None, info: Info):
        super().__init__()
        if self.needs_teacher and teacher is None:
            raise ValueError(f"{type(self).__name__} needs a teacher")
        self.student = student
        self.info = info
        # In a tuple, so that nn.Module does not register it: .train(), .parameters() and .state_dict() pass it by.
        self._teacher: tuple[Backbone, ...] = (teacher.eval().requires_grad_(False),) if teacher is not None else ()

    @property
    def teacher(self) -> Backbone:
        return self._teacher[0]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named, already weighted loss terms (scalars); the loop trains on their sum and records each.

        They are means over the batch. On several GPUs it is one GPU's share, and the loop takes the mean over all
        images. What compares images, or keeps something of them, gets the whole batch by `batch.share.gather`.
        """
        raise NotImplementedError

    def sample(self, anchors: Tensor, streams: Streams) -> Tensor:
        """The images of a step, given its anchors.

        Args:
            anchors: (A,) places among the training images, on the CPU.
            streams: random streams of this step.

        Returns:
            (A · images_per_anchor,) places: first the A anchors themselves, then blocks of A, with image j of anchor i
            at j · A + i. Several GPUs share the anchors, and each has all images of its own.
        """
        return anchors

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) of every classifier the method trains besides the student's own, by name, shallowest first."""
        return {}

    def deployed(self) -> nn.Module:
        """The network that is kept: images to logits."""
        return self.student

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with the true labels, smoothed as the recipe says; logits (B, K), labels (B,)."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.info.label_smoothing)

    @torch.no_grad()
    def teach(self, images: Tensor) -> Features:
        """What the teacher says of these images, without gradient."""
        return self.teacher(images, features=True)

    def stage_shapes(self, network: Backbone | None = None) -> Sequence[tuple[int, int, int]]:
        """(channels, height, width) of each stage map of `network` (the student by default), shallowest first."""
        return (network or self.student).stage_shapes(self.info.image_shape)
