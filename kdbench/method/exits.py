"""What methods with further classifiers share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn


def branch_logits(branches: nn.ModuleList, stages: Sequence[Tensor]) -> list[Tensor]:
    """Logits (B, K) of branches (`Backbone.fresh_stages`) after each of the last stages before the deepest, shallowest first.

    Args:
        stages: maps of all stages, the deepest among them.
    """
    read = stages[len(stages) - 1 - len(branches) : -1]
    return [branch(x).logits for branch, x in zip(branches, read, strict=True)]


def numbered(name: str, logits: Iterable[Tensor]) -> dict[str, Tensor]:
    """Logits as entries of `Method.exits`: a name and a number from 1 for each."""
    return {f"{name}{number}": z for number, z in enumerate(logits, start=1)}
