"""A second classifier on the student's pooled features, trained in addition to what a method does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.errors import RunError
from kdbench.method.batch import Batch
from kdbench.precision import at_least_float32, full_precision

if TYPE_CHECKING:
    from kdbench.method.base import Method

Losses = Callable[[Batch], dict[str, Tensor]]


class SecondHead(nn.Module):
    """Pooled features (B, D) to logits (B, K') of the second task.

    Args:
        width: D.
        label_of: the second label of each of the K classes.
    """

    label_of: Tensor

    def __init__(self, width: int, label_of: Sequence[int]):
        super().__init__()
        self.fc = nn.Linear(width, max(label_of) + 1)
        self.register_buffer("label_of", torch.tensor(label_of))

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.fc(pooled)
        return logits

    def targets(self, labels: Tensor) -> Tensor:
        """Second labels (B,), or shares (B, K') where `labels` are shares of the classes (B, K)."""
        if labels.dim() == 1:
            return self.label_of[labels]
        return labels @ F.one_hot(self.label_of, self.fc.out_features).to(labels.dtype)


def attach(method: Method, label_of: Sequence[int]) -> None:
    """Give a method a second head, which is trained and saved with its own modules."""
    method.second_head = SecondHead(method.student.fc.in_features, label_of)


def with_second_task(losses: Losses, method: Method, weight: float) -> Losses:
    """`losses` and the weighted cross-entropy of the second task, as the term "second_task".

    It is computed from what enters the student's classifier while `losses` runs. Where one pass holds several copies of the
    images, such as rotated ones, those of the first block are taken.

    Raises:
        RunError: (when called) the student has not classified all images of the batch.
    """
    head = method.second_head
    if head is None:
        return losses

    def of(batch: Batch) -> dict[str, Tensor]:
        entering: list[Tensor] = []
        handle = method.student.fc.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
        try:
            terms = losses(batch)
        finally:
            handle.remove()
        images, labels = len(batch.images), batch.labels
        if 0 < sum(map(len, entering)) * batch.view_count == images:  # it sees one view, and its peers the others
            images, labels = images // batch.view_count, labels.chunk(batch.view_count)[0]
        whole = [pooled[:images] for pooled in entering if len(pooled) and len(pooled) % images == 0]
        pooled = whole[0] if whole else torch.cat(entering) if entering else batch.images[:0]
        if len(pooled) != images:
            name = type(method).__name__
            raise RunError(
                f"SecondTask.weight needs a student that classifies each image of a batch, which {name} does not do"
            )
        with full_precision(pooled.device):  # as in the backbone's own classifier
            logits = head(at_least_float32(pooled))
            loss = F.cross_entropy(logits, head.targets(labels), label_smoothing=method.info.label_smoothing)
        return {**terms, "second_task": weight * loss}

    return of
