"""AutoAugment's policy for CIFAR-10, which is the usual one for CIFAR-100 too, with the operations of RandAugment.

Cubuk, Zoph, Mané, Vasudevan and Le, "AutoAugment: Learning augmentation strategies from data", CVPR 2019, table 7. The ranges of
the operations are those of torchvision.transforms.AutoAugment.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.data.randaugment import OPERATIONS, Policy, amounts

MAGNITUDES = 10
"""Magnitudes are numbered 0..9."""

PAIRS = """
Invert .1, Contrast .2 6
Rotate .7 2, TranslateX .3 9
Sharpness .8 1, Sharpness .9 3
ShearY .5 8, TranslateY .7 9
AutoContrast .5, Equalize .9
ShearY .2 7, Posterize .3 7
Color .4 3, Brightness .6 7
Sharpness .3 9, Brightness .7 9
Equalize .6, Equalize .5
Contrast .6 7, Sharpness .6 5
Color .7 7, TranslateX .5 8
Equalize .3, AutoContrast .4
TranslateY .4 3, Sharpness .2 6
Brightness .9 6, Color .2 8
Solarize .5 2, Invert .0
Equalize .2, AutoContrast .6
Equalize .2, Equalize .6
Color .9 9, Equalize .6
AutoContrast .8, Solarize .2 8
Brightness .1 3, Color .7 0
Solarize .4 5, AutoContrast .9
TranslateY .9 9, TranslateY .7 9
AutoContrast .9, Solarize .8 3
Equalize .8, Invert .1
TranslateY .7 9, AutoContrast .9
"""
"""Two operations one after another, each with its probability and, if it has one, its magnitude. A pair is drawn for each
image."""


def table() -> tuple[Tensor, Tensor]:
    """Number and magnitude of each operation, (25, 2, 2) int64, and its probability, (25, 2) float64."""
    pairs = [[step.split() for step in line.split(",")] for line in PAIRS.strip().splitlines()]
    numbers = [[_number(name, *map(int, magnitude)) for name, _, *magnitude in pair] for pair in pairs]
    chances = [[float(chance) for _, chance, *_ in pair] for pair in pairs]
    return torch.tensor(numbers), torch.tensor(chances, dtype=torch.float64)


def _number(name: str, magnitude: int = 0) -> tuple[int, int]:
    if name == "Invert":  # is to solarise all grey levels, which is the strongest magnitude
        name, magnitude = "Solarize", MAGNITUDES - 1
    return OPERATIONS.index(name), magnitude


class AutoAugment(Policy):
    """The policy for images of one size.

    Args:
        height, width: height and width of the images in pixels.
        fill: grey level, 0..255, of pixels from outside the image.
    """

    def __init__(self, height: int, width: int, fill: int):
        super().__init__(2, amounts(False, height, width, MAGNITUDES), fill)
        self._numbers, self._chances = table()

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `Policy.draw`; an operation that is not done is the identity."""
        pair = torch.randint(len(self._numbers), (count,), generator=generator)
        done = torch.rand(count, 2, generator=generator, dtype=torch.float64) < self._chances[pair]
        negative = torch.randint(2, (count, 2, 1), generator=generator)
        drawn = torch.cat([self._numbers[pair], negative], dim=2)
        drawn[:, :, 0] = drawn[:, :, 0].where(done, torch.tensor(OPERATIONS.index("Identity")))
        return drawn
