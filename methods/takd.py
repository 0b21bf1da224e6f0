"""Teacher assistants: between a large teacher and a small student, networks of sizes in between pass the knowledge on.

Mirzadeh, Farajtabar, Li, Levine, Matsukawa and Ghasemzadeh, "Improved knowledge distillation via teacher assistant", AAAI 2020.

Family: training
Loss: (1 − λ) · CE + λ · T² · KL(softmax(z^t / T) ‖ softmax(z / T)) at each step of the chain, z^t of the network just above
Source: the authors' code (Teacher-Assistant-Knowledge-Distillation, train.py)
Choice: `average` is "images" by default, KD's mean over the batch. "elements" is the authors' mean over images and classes, with
    which the KL counts K times less than their formula has it.
Choice: λ = 0.9 and T = 4, as for KD; the authors search both for every run, on the test set
Choice: the assistants are resnet32, resnet20 and resnet14, as far as they come between teacher and student; the usual ones of
    the paper are one to four of this family. For other networks, a variant with a `Teaching.chain` of its own.
Choice: every network of the chain is trained on the recipe's whole budget; the authors' rule for the learning rate, which
    never uses its first value, is left to the recipe
Fault: λ = 0.95 of the authors' mean over the elements is, with 100 classes, 0.19 times the weight of the cross-entropy
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from kdbench.method import Backbone, Batch, Method, RunError, Teacher, distillation


def averaged_distillation(
    logits: Tensor, target_logits: Tensor, temperature: float, average: Literal["images", "elements"]
) -> Tensor:
    """T² · KL(softmax(target / T) ‖ softmax(logits / T)) of logits (B, K).

    Args:
        average: "images": summed over the classes, averaged over the batch; "elements": averaged over both, K times less.
    """
    loss = distillation(logits, target_logits, temperature)
    return loss if average == "images" else loss / logits.shape[1]


def check_sizes(method: str, student: Backbone, teachers: Sequence[Teacher]) -> None:
    """Refuse a network that is taught by a smaller one; for `setup`, so that a plan can refuse the chain.

    Raises:
        RunError: the last of `teachers`, which is the nearest, has fewer parameters than the student.
    """
    taught, nearest = (sum(p.numel() for p in each.parameters()) for each in (student, teachers[-1].network))
    if nearest < taught:
        raise RunError(
            f"{method} needs a chain of networks that get smaller: one with {nearest:,} parameters would teach one with "
            f"{taught:,}; choose a larger teacher or a smaller student, or write a variant with other assistants "
            "(Teaching.chain)"
        )


class TAKD(Method):
    """Cross-entropy and `averaged_distillation` from the nearest network above, for each network of the chain.

    Args:
        ce_weight, kd_weight: of the two; their sum is 1 by custom.
        temperature: of the distillation.
        average: of the distillation.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    temperature: float
    average: Literal["images", "elements"]

    def setup(self) -> None:
        check_sizes("takd", self.student, self.teachers)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * averaged_distillation(logits, target, self.temperature, self.average),
        }
