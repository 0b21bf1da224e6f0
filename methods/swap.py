"""Swap (label augmentation): where the teacher is wrong, its largest logit and the label's change places.

Sun, Chen, Lyu, Chen, Chen and Wang, "Knowledge distillation with refined logits", ICCV 2025, who compare their method with it.

Family: logit
Loss: T² · KL(softmax(swap(zᵗ) / T) ‖ softmax(z / T)), swap(zᵗ): zᵗ_y and max zᵗ exchanged
Source: RLD (mdistiller/distillers/SWAP.py)
Choice: the cross-entropy is left out, as in the source: the labels act through the exchange alone.
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, distillation


def swapped(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, K) in which the largest and that of the label (B,) have changed places; those of right images stay."""
    largest, predicted = logits.max(dim=1, keepdim=True)
    labels = labels.unsqueeze(1)
    return logits.scatter(1, predicted, logits.gather(1, labels)).scatter(1, labels, largest)


class Swap(Method):
    """KD alone, from the teacher's `swapped` logits."""

    needs_teacher = True

    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {"kd": distillation(logits, swapped(target, batch.labels), self.temperature)}
