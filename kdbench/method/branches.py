"""What online methods share: copies of the last stage that learn with the student, and a weight that rises in the beginning."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone, Features
from kdbench.errors import RunError
from kdbench.method.losses import distillation
from kdbench.precision import at_least_float32


def last_stage(method: str, student: Backbone) -> int:
    """The number of the student's last stage, for `student.fresh_stages`; for `setup`, so that a plan can refuse students.

    Args:
        method: its name, for the sentence.

    Raises:
        RunError: the student has one stage, so branches would share nothing.
    """
    stages = len(student.stage_modules())
    if stages < 2:
        raise RunError(f"{method} needs a student with at least two stages; this one has {stages}")
    return stages - 1


def fork(student: Backbone, branches: Iterable[nn.Module], images: Tensor) -> list[Features]:
    """Features of the student and of each of its branches, which read the map before its last stage.

    The pooled feature, logits and the last of the `stages` are each one's own; a branch has no other stages.

    Args:
        branches: made by `student.fresh_stages(last_stage(…, student))`.
        images: (B, C, H, W); they pass through the student once.
    """
    out = student(images, features=True)
    return [out, *(branch(out.stages[-2]) for branch in branches)]


def ramp_up(progress: float, length: float) -> float:
    """exp(−5 · (1 − progress / length)²), and 1 from `length` on: a weight that rises from e⁻⁵ = 0.0067 to 1.

    Laine and Aila, "Temporal ensembling for semi-supervised learning", ICLR 2017. The online methods that use it let it rise
    over 80 of 300 epochs.

    Args:
        progress: share of the training that is done, such as `Batch.progress`.
        length: share of the training over which the weight rises; 0: it is 1 from the start.
    """
    return math.exp(-5 * (1 - min(progress / length, 1)) ** 2) if length else 1.0


def floored_distillation(logits: Tensor, target_logits: Tensor, temperature: float, floor: float) -> Tensor:
    """`distillation` with `floor` added to each of the target's probabilities, which then no longer sum to 1; at 0 the same.

    Several implementations of online methods add 1e-7, where a logarithm of the probabilities themselves is taken.

    Args:
        logits, target_logits: (B, K).
    """
    if not floor:
        return distillation(logits, target_logits, temperature)
    log_p = F.log_softmax(at_least_float32(logits) / temperature, dim=1)
    target = F.softmax(at_least_float32(target_logits) / temperature, dim=1) + floor
    return temperature**2 * F.kl_div(log_p, target, reduction="batchmean")
