"""Cross-entropy: the student alone, and how every teacher is trained.

Label smoothing: Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section 7.

Family: label
Loss: CE(z, y)
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from kdbench.method import Batch, Method


class CE(Method):
    """Cross-entropy with the true labels.

    Args:
        label_smoothing: share of each label that is spread over all classes; None takes the recipe's.
    """

    label_smoothing: float | None

    def setup(self) -> None:
        if self.label_smoothing is not None:
            self.info = dataclasses.replace(self.info, label_smoothing=self.label_smoothing)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}
