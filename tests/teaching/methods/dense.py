"""Every teacher teaches, like dgkd (Son et al., ICCV 2021) without dropping any."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.method import Batch, Method, distillation


class Dense(Method):
    """Cross-entropy, and the sum of the distillation terms of all teachers."""

    needs_teacher = True

    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        taught = [self.teach(batch, "logits", teacher=number).logits for number in range(len(self.teachers))]
        terms = [distillation(logits, target, self.temperature) for target in taught]
        return {"ce": self.cross_entropy(logits, batch.labels), "kd": torch.stack(terms).sum()}
