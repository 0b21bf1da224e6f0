"""The inputs of a method: one step's images, and the task that it is built for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdbench.backbones.backbone import Backbone
from kdbench.method.share import Share
from kdbench.streams import Streams


@dataclass(frozen=True)
class Info:
    """The facts of its task that a method may use.

    Attributes:
        classes: number of classes K.
        train_labels: (N,) labels of the training images, in the order that `Batch.index` and `Method.sample` count in.
        image_shape: (channels, height, width) of one image.
        label_smoothing: the recipe's; `Method.cross_entropy` applies it.
        device: where the run trains.
        batch_size: B, images in a whole batch, all views included.
        steps: steps that the budget pays for.
        epochs: epochs in them, rounded up; `Batch.epoch` goes from 1 to this.
        network: builds a backbone by name (None: the student's architecture) with the initial weights of a named stream.
    """

    classes: int
    train_labels: Tensor
    image_shape: tuple[int, int, int]
    label_smoothing: float
    device: torch.device
    batch_size: int = 0
    steps: int = 0
    epochs: int = 0
    network: Callable[[str | None, str], Backbone] = field(repr=False, default=None)  # type: ignore[assignment]

    @property
    def images(self) -> int:
        """N, the number of training images."""
        return len(self.train_labels)


@dataclass(frozen=True)
class Batch:
    """One step's images, on the training device, normalised and augmented; on several GPUs, this one's share of them.

    Attributes:
        images: (B, C, H, W) float32.
        labels: (B,) int64; where the recipe mixes images (`Mix.*`), (B, K) float32, the shares of the classes. Methods that
            read classes themselves, and do not only pass them to `Method.cross_entropy`, are refused there.
        index: (B,) int64, each image's place among the N training images.
        step: number of the step, from 0.
        streams: random streams of this step, for what the method draws itself: `batch.streams("negatives", device=d)`.
            They give the same on every GPU: draw for the whole batch, and take `share.own` of it.
        share: leads from this GPU's images to the whole batch and back, for terms that are not means over single images.
        epoch: from 1, by images.
        progress: share of the training that was done before this step, 0 to below 1.
        phase_progress: the same within the phase.
        view_count: augmented copies of each image in the batch.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    step: int
    streams: Streams
    share: Share = field(default_factory=Share)
    epoch: int = 1
    progress: float = 0.0
    phase_progress: float = 0.0
    view_count: int = 1

    def views(self) -> tuple[Tensor, ...]:
        """The images of each view, (B / V, C, H, W); image i of one view is image i of the others, augmented differently."""
        return self.images.chunk(self.view_count)
