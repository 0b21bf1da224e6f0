"""The final evaluation of a run, as every measure sees it, and the check of what a measure returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from kdbench.config import extensions, result_keys, settings
from kdbench.data.images import Images
from kdbench.errors import RunError
from kdbench.measures.convergence import Point

OWN = "own"
"""The key of a network's own classifier among its exits."""

Values = dict[str, float | int | None]


@dataclass(frozen=True)
class Evaluation:
    """The inputs of a measure. Training is over; a measure changes none of them.

    Attributes:
        network: the deployed network at the last epoch, in evaluation mode; images (B, C, H, W) to logits (B, K).
        logits: (N, K) for the N test images, by classifier: `OWN` and the method's exits.
        teacher_logits: (N, K), None without a teacher.
        test: the test images (N, H, W, C) uint8 and labels (N,) int64.
        curve: one point for each epoch's end, in order; empty without a validation split.
        classes: number of classes K.
        dataset: its mean and standard deviation, for `kdbench.data.augment.normalise`.
        measures: the settings `Measures.*`.
        folder: the user's data folder, if there is one, for measures with files of their own.
        features, teacher_features: pooled features (N, D) of network and teacher for the test images; None without a teacher,
            and for a network that is not a backbone.
        flops_through: FLOPs of an image through all classifiers up to each one, in their order, `OWN` last.
        between: a slow measure calls it now and then with the share of its work that is done; it may raise.
    """

    network: nn.Module
    logits: Mapping[str, Tensor]
    teacher_logits: Tensor | None
    test: Images
    curve: Sequence[Point]
    classes: int
    dataset: settings.Dataset
    measures: settings.Measures
    between: Callable[[float], None] = lambda done: None
    folder: Path | None = None
    features: Tensor | None = None
    teacher_features: Tensor | None = None
    flops_through: Mapping[str, int] = field(default_factory=dict)


def measure(evaluation: Evaluation) -> Values:
    """The values of all measures, by key of the result.

    Raises:
        UserError: a measure's file cannot be imported.
        RunError: a measure returns something that it does not declare.
    """
    result: Values = {}
    for name, extension in extensions.members("measure").items():
        values = extensions.load(extension)(evaluation)
        where = f"{extension.path}: the measure '{name}'"
        if not isinstance(values, Mapping):
            raise RunError(f"{where} must return a dict, not {type(values).__name__}")
        for key, value in values.items():
            if not result_keys.is_declared(key, result_keys.by_measure()[name]):
                raise RunError(f"{where} returns '{key}', which MEASURES does not declare")
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise RunError(f"{where} returns a {type(value).__name__} as '{key}', which must be a number or None")
        result |= values
    return result
