"""Fixtures for methods of logits: the class on networks whose logits are a table, and random logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdbench.method import Backbone


class Table(Backbone):
    """A network with the same logits (B, K) for all images, and the classifier's weight."""

    def __init__(self, logits: Tensor, weight: Tensor | None = None):
        super().__init__()
        self.logits = logits
        weight = torch.eye(logits.shape[1]) if weight is None else weight
        self.fc = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        self.fc.weight.data.copy_(weight)

    def forward(self, images, features=False):
        return self.logits


@pytest.fixture
def terms_of_logits(make, batch) -> Callable[..., dict[str, Tensor]]:
    """The terms of a method on logits (B, K) of student and teacher and labels (B,).

    Keyword arguments: `classifier`, the weight of the teacher's; `epoch`, `progress` and `share` of the batch; all others are
    those of `make`.
    """

    def terms(name: str, z: Tensor, t: Tensor, labels: Tensor | None = None, **given: Any) -> dict[str, Tensor]:
        at = {key: given.pop(key) for key in ("epoch", "progress", "share") if key in given}
        labels = torch.arange(len(z)) % z.shape[1] if labels is None else labels
        teacher = Table(t, given.pop("classifier", None))
        method = make(name, student=Table(z), teacher=teacher, labels=range(z.shape[1]), **given)
        return method.losses(replace(batch(method, anchors=1), labels=labels, **at))

    return terms


@pytest.fixture
def logits() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Random logits (B, K) of student and teacher in float64, the first with gradient, and labels (B,)."""

    def draw(images: int = 7, classes: int = 5, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(4)
        z, t = scale * torch.randn(2, images, classes, generator=generator, dtype=torch.float64)
        return z.requires_grad_(), t, torch.randint(classes, (images,), generator=generator)

    return draw


@pytest.fixture
def apart(reference) -> Callable[[str], Any]:
    """The reference case of a name, in which each network's part (…) of a stack (M, …) is a tensor of its own, NAME_1, NAME_2, …

    Only tensors of more than two dimensions are stacks. A case has one gradient norm for each of these parts.
    """

    def case_of(name: str) -> Any:
        case = reference(name)
        parts: dict[str, Tensor] = {}
        for key, value in case.student.items():
            several = value.detach().unbind() if value.dim() > 2 else ()
            parts |= {f"{key}_{n}": part.clone().requires_grad_() for n, part in enumerate(several, 1)} or {key: value}
        case.student = parts
        return case

    return case_of
