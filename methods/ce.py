"""Cross-entropy: the student alone, and how every teacher is trained.

Label smoothing: Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section 7.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from kdbench.backbones.backbone import Backbone
from kdbench.method.base import Batch, Info, Method


class CE(Method):
    """Cross-entropy with the true labels.

    Args:
        label_smoothing: share of each label that is spread over all classes; None is the recipe's.
    """

    needs_teacher = False

    def __init__(self, student: Backbone, teacher: Backbone | None, info: Info, *, label_smoothing: float | None):
        if label_smoothing is not None:
            info = dataclasses.replace(info, label_smoothing=label_smoothing)
        super().__init__(student, teacher, info)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}
