"""LWR: every few epochs, what the student said of each image in the last of them becomes its soft target for the next few.

Deng and Zhang, "Learning with retrospection", AAAI 2021.

Family: self
Loss: (γ + (1 − w)(1 − γ)) · CE + w(1 − γ) · T² · KL(softmax(z′ / T) ‖ softmax(z / T)), w = k⌊e/k⌋ / H in epoch e, z′ the logits of
    the image in the last epoch before this one that k divides; the cross-entropy alone up to epoch k
Source: the authors' code (Learning-With-Retrospection, helper/loops.py)
Choice: H is 1.2 times the epochs of the run: in the authors' code it is 240 in runs of 200 epochs, so that w ends below 1
    (LWR.horizon=1.0: at the end of training).
Choice: k is 5 for all networks; the authors' script has 1 for WRN-16-4 and 50 for VGG-16.
Fault: the original keeps the logits of an epoch with their graphs until the epoch ends; here they are detached at once.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kdbench.method import Batch, ImageMemory, Method, at_least_float32, distillation


class LWR(Method):
    """Cross-entropy, and distillation from the student's own logits of the last epoch that `every` divides.

    Args:
        gamma: share of the cross-entropy that remains at w = 1.
        temperature: T.
        every: k, epochs between two replacements of the targets.
        horizon: H, in lengths of the training.
        dtype: of the two memories of logits, N × K each.
        place: of the memories; "host" where the GPU has no room for them.
        limit_gib: of each memory.
    """

    gamma: float
    temperature: float
    every: int
    horizon: float
    dtype: Literal["float32", "float16"]
    place: Literal["device", "host"]
    limit_gib: float

    def setup(self) -> None:
        memory = self.info.images, self.info.classes, getattr(torch, self.dtype), self.place, self.limit_gib
        self.targets, self.gathered = ImageMemory(*memory), ImageMemory(*memory)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = at_least_float32(self.student(batch.images))
        # In every epoch: a step over the end of one has the first images of the next.
        self.gathered.write(batch, logits)
        weight = self.weight(batch.epoch)
        return {
            "ce": (1 - weight) * self.cross_entropy(logits, batch.labels),
            "past": weight * distillation(logits, self.targets.read(batch), self.temperature),
        }

    def weight(self, epoch: int) -> float:
        """Weight w(1 − γ) of the distillation in an epoch, from 1; 0 until there are targets."""
        behind = (epoch - 1) // self.every * self.every  # the epoch that the targets are from
        if not behind:
            return 0.0
        began = epoch // self.every * self.every  # as in the authors' code: an epoch that k divides counts itself
        return (1 - self.gamma) * min(began / (self.horizon * max(self.info.epochs, 1)), 1.0)

    def after_epoch(self, epoch: int) -> None:
        if epoch % self.every == 0:
            self.targets.rows.copy_(self.gathered.rows)
