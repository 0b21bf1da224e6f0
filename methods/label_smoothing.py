"""Label smoothing: a share of each label is spread over the classes, as a row of its own.

Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception architecture for computer vision", CVPR 2016, section 7.

Family: regulariser
Loss: −Σ_k q_k · ln p_k, q = (1 − ε) · onehot(y) + ε / K
Source: the formula; OnlineLabelSmoothing (cifar/) for "all", Teacher-free-KD (my_loss_function.py) for "wrong"
Choice: `others` is "all": ε / K on every class, the label included, as in frameworks and in Train.label_smoothing. "wrong" has
    ε / (K − 1) on the other classes alone, which is "all" with ε · K / (K − 1).
Fault: published code takes the logarithm of a softmax, which is −∞ for very wrong images; here it is a log-softmax
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor

from kdbench.method import Batch, Method, RunError


def spread_over_all(smoothing: float, classes: int, others: Literal["all", "wrong"]) -> float:
    """The share that is spread over all K classes, the label included, where `smoothing` is spread over `others`."""
    return smoothing if others == "all" else smoothing * classes / (classes - 1)


class LabelSmoothing(Method):
    """Cross-entropy with labels smoothed by its own share, in place of the recipe's.

    Args:
        smoothing: ε.
        others: the classes that get it: "all", or the "wrong" ones.
    """

    smoothing: float
    others: Literal["all", "wrong"]

    def setup(self) -> None:
        share = spread_over_all(self.smoothing, self.info.classes, self.others)
        if not 0 <= share <= 1:
            raise RunError(f"LabelSmoothing.smoothing={self.smoothing:g} must leave a label between 0 and 1 of itself")
        self.info = dataclasses.replace(self.info, label_smoothing=share)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}
