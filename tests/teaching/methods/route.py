"""The teacher changes along the training, like rco (Jin et al., ICCV 2019)."""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, distillation


class Route(Method):
    """Distillation from the state of the teacher's training that belongs to the share of the student's that is done."""

    needs_teacher = True

    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        target = self.teach(batch, "logits", teacher=int(batch.progress * len(self.teachers))).logits
        return {"kd": distillation(logits, target, self.temperature)}
