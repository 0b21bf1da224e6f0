"""DLB: the images of the step before pass again in another augmentation, and keep to what the student said of them then.

Shen, Xu, Yang, Li, Guo, "Self-distillation from the last mini-batch for consistency regularization", CVPR 2022.

Family: self
Loss: CE, averaged over the images of this step and of the step before, + α · T² · KL(softmax(z′ / T) ‖ softmax(z / T)) over those
    of the step before, z′ their logits then; in the first step its own images pass twice, with CE alone
Source: the authors' code (DLB, dlb.py)
Choice: both halves pass separately, so that each is normalised with statistics of its own, as in the authors' code.
Choice: α = 1; the name of a run in the authors' repository says 0.5, and its script has no default.
Fault: the original keeps the graph of the step before until the next step; here its logits are detached at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, distillation


class DLB(Method):
    """Cross-entropy of both halves, and distillation of the second one from its logits in the step before.

    Args:
        weight: α.
        temperature: T.
    """

    images_per_anchor = 2

    before: Tensor

    weight: float
    temperature: float

    def setup(self) -> None:
        anchors = -(-self.info.batch_size // 2)
        self.register_buffer("before", torch.zeros(anchors, self.info.classes))

    def sample_after(self, before: Tensor | None, anchors: Tensor, streams: Any) -> Tensor:
        return torch.cat([anchors, anchors if before is None else before])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        ours, others = batch.images.chunk(2)
        logits, again = at_least_float32(self.student(ours)), at_least_float32(self.student(others))
        whole = batch.share.gather(logits.detach())
        # A queue: where a step's batch comes in parts, each takes its own rows from the front.
        first, rest = self.before[: len(whole)], self.before[len(whole) :]
        past = again.sum() * 0.0
        if batch.step:
            past = self.weight * distillation(again, batch.share.own(first), self.temperature)
        self.before = torch.cat([rest, whole])
        return {"ce": self.cross_entropy(torch.cat([logits, again]), batch.labels), "last": past}
