"""Teacher-free distillation by self-training: the student learns from a finished network of its own architecture.

Yuan, Tay, Li, Wang and Feng, "Revisiting knowledge distillation via label smoothing regularization", CVPR 2020 (Tf-KD_self).

Family: logit
Loss: (1 − α) · CE + α · m / K · T² · KL(softmax(z^t / T) ‖ softmax(z / T)), z^t of a network like the student, trained alone
Source: the authors' code (Teacher-free-Knowledge-Distillation, my_loss_function.py)
Choice: α = 0.95, T = 6 and m = 50, the authors' for ResNet-18 on CIFAR-100, are the default for all networks: the KL summed over
    the classes weighs α · m / 100 = 0.475. They set α from 0.4 to 0.95, T from 6 to 20 and m from 1 to 100 for each network.
Choice: `average` is "images" by default, KD's mean over the batch; "elements" is the authors' mean over images and classes, with
    which `kd_weight` is α · m
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kdbench.method import Batch, Method
from kdbench.methods.takd import averaged_distillation


class TfKDSelf(Method):
    """Cross-entropy, and `averaged_distillation` from a twin of the student.

    Args:
        ce_weight, kd_weight: of the two.
        temperature: of the distillation.
        average: of the distillation.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    temperature: float
    average: Literal["images", "elements"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * averaged_distillation(logits, target, self.temperature, self.average),
        }
