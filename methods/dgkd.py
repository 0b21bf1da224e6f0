"""Densely guided distillation: the teacher and all assistants teach at once, and some of them are left out at random.

Son, Na, Choi and Hwang, "Densely guided knowledge distillation using multiple teacher assistants", ICCV 2021.

Family: training
Loss: (1 − λ) · CE + λ · T² · Σ_j KL(softmax(z^j / T) ‖ softmax(z / T)), j over the teacher and all assistants but d at random
Source: the authors' code (DGKD, train.py)
Choice: `average` is "images" by default, KD's mean over the batch; "elements" is the authors' mean over images and classes
Choice: λ = 1 as in the authors' code, so the cross-entropy has weight 0
Choice: `dropped` is 1, as in the authors' code with three assistants. At least one network always teaches, so that the first
    assistant, which has the teacher alone, is taught by it.
Choice: the assistants are resnet32, resnet20 and resnet14, as far as they come between teacher and student; each is taught by
    all above it. For other networks, a variant with a `Teaching.chain` of its own.
Fault: the authors' script stops at an option that it does not define, and fails where more terms are left out than there are
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kdbench.method import Batch, Method, RunError
from kdbench.methods.takd import averaged_distillation, check_sizes


class DGKD(Method):
    """Cross-entropy, and the sum of `averaged_distillation` from the networks above that teach in this step.

    Args:
        ce_weight, kd_weight: of the cross-entropy and of the sum.
        temperature: of the distillation.
        dropped: teachers that are left out in each step, other ones each time; at most all but one.
        average: of the distillation.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    temperature: float
    dropped: int
    average: Literal["images", "elements"]

    def setup(self) -> None:
        check_sizes("dgkd", self.student, self.teachers)
        if self.dropped < 0:
            raise RunError(f"DGKD.dropped={self.dropped} must be at least 0 teachers")

    def teaching(self, batch: Batch) -> list[int]:
        """The places in `teachers` of those that teach in the step of a batch, in order."""
        count = len(self.teachers)
        order = torch.randperm(count, generator=batch.streams("dropped teachers"))
        return sorted(order[min(self.dropped, count - 1) :].tolist())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        targets = [self.teach(batch, "logits", teacher=number).logits for number in self.teaching(batch)]
        terms = [averaged_distillation(logits, target, self.temperature, self.average) for target in targets]
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * torch.stack(terms).sum(),
        }
