"""Early exit: each image leaves at the first classifier that is confident enough, for accuracy over FLOPs.

The rule of BranchyNet (Teerapittayanon, McDanel and Kung, ICPR 2016), with the largest softmax probability as confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdbench.measures.evaluation import Evaluation, Values

MEASURES = {
    "early_exit": (
        "early_exit",
        {
            "keys": {
                "early_exit.accuracy.*": (
                    "float", "percent", "accuracy where each image leaves at the first classifier of at least this confidence",
                ),
                "early_exit.flops.*": ("float", "FLOPs", "mean FLOPs of an image then, with the classifiers that it passed"),
            },
            "columns": {
                "early_exit.*": {
                    "key": "early_exit.accuracy.*", "title": "Early exit {} %", "optional": True,
                    "about": "accuracy where an image leaves at the first classifier of this confidence",
                },
                "early_exit_flops.*": {
                    "key": "early_exit.flops.*", "title": "FLOPs at {}", "optional": True, "digits": None,
                    "about": "mean FLOPs of an image that leaves at the first classifier of this confidence",
                    "better": "lower", "spread": False,
                },
            },
        },
    )
}  # fmt: skip

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def early_exit(evaluation: Evaluation) -> Values:
    """`early_exit.accuracy.*` and `early_exit.flops.*` by confidence; nothing for a method without exits."""
    flops = evaluation.flops_through
    if len(flops) < 2:
        return {}
    values: Values = {}
    for confidence in CONFIDENCES:
        accuracy, mean = leaving(evaluation.logits, flops, evaluation.test.labels, confidence)
        values[f"early_exit.accuracy.{confidence:g}"] = accuracy
        values[f"early_exit.flops.{confidence:g}"] = mean
    return values


def leaving(
    logits: Mapping[str, Tensor], flops: Mapping[str, int], labels: Tensor, confidence: float
) -> tuple[float, float]:
    """Accuracy in percent and mean FLOPs where each image leaves at the first classifier of at least this confidence.

    Args:
        logits: (N, K) by classifier.
        flops: FLOPs of an image that leaves at a classifier, by its name, in the order of the classifiers; all leave at the last.
        labels: (N,).
    """
    names: Sequence[str] = list(flops)
    probability, guess = torch.stack([logits[name].double().softmax(dim=1) for name in names]).max(dim=2)
    sure = probability >= confidence
    sure[-1] = True
    place = sure.int().argmax(dim=0)  # the first of equal values
    right = (guess.gather(0, place[None])[0] == labels).double().mean().item()
    costs = torch.tensor([float(flops[name]) for name in names], dtype=torch.float64, device=place.device)
    return 100 * right, costs[place].mean().item()
