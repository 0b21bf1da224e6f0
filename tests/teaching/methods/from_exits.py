"""The exits that a teacher was trained with teach, like tofd (Zhang et al., NeurIPS 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.method import Batch, Method, distillation


class FromExits(Method):
    """Cross-entropy, and the distillation terms of all exits of the teacher."""

    needs_teacher = True

    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        exits = self.teachers[0].exits(batch.images)
        terms = [distillation(logits, target, self.temperature) for target in exits.values()]
        return {"ce": self.cross_entropy(logits, batch.labels), "kd": torch.stack(terms).sum()}
