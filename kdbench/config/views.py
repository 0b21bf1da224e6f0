"""The kinds of augmentation that a method's views name, and the settings of the strong one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import gin

KINDS = ("recipe", "strong")
"""Kinds of views: the recipe's own augmentation, and the strong one of `Strong`."""


@gin.configurable
@dataclass(frozen=True)
class Strong:
    """The strong view: the recipe's crop and mirror image, then RandAugment or TrivialAugment, then cutout.

    Shared by all methods, and of no effect on those without a strong view. The values have defaults here, and at its
    default a value leaves no trace in configurations, ids and protocols; any other one is part of them for every method.

    Attributes:
        policy: "randaugment" (Cubuk et al., 2020) or "trivialaugment" (Müller and Hutter, 2021), which is one operation
            from a wider range at a random magnitude.
        operations: number of RandAugment's operations, one after another; 0 leaves the image as it is.
        magnitude: magnitude of RandAugment, 0..30.
        random_magnitude: draw each operation's magnitude of RandAugment uniformly from 0..magnitude; with
            magnitude 30 as in FixMatch (Sohn et al., 2020).
        cutout: side of the square set to the mean, as a share of the image's width; 0 is none.
    """

    policy: Literal["randaugment", "trivialaugment"] = "randaugment"
    operations: int = 2
    magnitude: int = 9
    random_magnitude: bool = False
    cutout: float = 0.5

    def __post_init__(self) -> None:
        if self.operations < 0:
            raise ValueError("Strong.operations must be at least 0")
        if not 0 <= self.magnitude <= 30:
            raise ValueError("Strong.magnitude must be between 0 and 30")
        if not 0 <= self.cutout <= 1:
            raise ValueError("Strong.cutout must be between 0 and 1 (a share of the width)")
        own = self.operations, self.magnitude, self.random_magnitude
        if self.policy == "trivialaugment" and own != (2, 9, False):
            raise ValueError(
                "Strong.operations, Strong.magnitude and Strong.random_magnitude require Strong.policy='randaugment'"
            )
