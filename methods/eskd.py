"""ESKD: knowledge distillation that ends before the training does, because a student cannot follow a large teacher to the end.

Cho and Hariharan, "On the efficacy of knowledge distillation", ICCV 2019.

Family: training
Loss: 0.1 · CE + 0.9 · T² · KL(softmax(z^t / T) ‖ softmax(z / T)) for the first 0.625 of the training, CE afterwards; T = 4
Source: the paper; the authors have published no code
Choice: `until` is 0.625 of the training, the first milestone of the usual schedule on CIFAR-100
Choice: `later_ce_weight` is 1: afterwards the student is trained as it would be alone, and the schedule goes on
Choice: the paper's second idea, a teacher whose own training is short, is the variant `eskd_teacher`: KD from a teacher that had a
    quarter of the budget, with the whole schedule over it
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, RunError
from kdbench.methods.kd import KD


class ESKD(KD):  # type: ignore[misc]  # mypy does not look into methods by their module
    """The terms of knowledge distillation, then cross-entropy alone, for which the teacher is not asked.

    Args:
        until: share of the training after which the teacher is left.
        later_ce_weight: weight of the cross-entropy from then on.
    """

    until: float
    later_ce_weight: float

    def setup(self) -> None:
        if not 0 < self.until <= 1:
            raise RunError(f"ESKD.until={self.until:g} must be above 0 and at most 1, a share of the training")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if batch.progress < self.until:
            terms: dict[str, Tensor] = super().losses(batch)
            return terms
        return {"ce": self.later_ce_weight * self.cross_entropy(self.student(batch.images), batch.labels)}
