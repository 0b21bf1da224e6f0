"""Shares and boxes of mixed images, for the recipe's `Mix.*` and for methods that mix their images themselves."""

from __future__ import annotations

import numpy as np


def beta(alpha: float, number: int) -> float:
    """A draw from Beta(α, α), the same on every machine.

    torch draws from Beta with its global generator only; numpy promises that this generator gives the same for ever.

    Args:
        number: from 0 to below 2³², drawn from the step's random streams.
    """
    return float(np.random.RandomState(number).beta(alpha, alpha))


def box(size: tuple[int, int], share: float, centre: tuple[float, float]) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a part of area 1 − λ, cut off at the edges (Yun et al., 2019, equation 2).

    Args:
        size: height and width of the images.
        share: λ.
        centre: of the part before it is cut off, from the top and from the left, as shares (0 to below 1) of the sides.
    """
    edges: list[int] = []
    for length, at in zip(size, centre, strict=True):
        half, middle = int(length * (1 - share) ** 0.5) // 2, int(length * at)
        edges += [max(middle - half, 0), min(middle + half, length)]
    top, bottom, left, right = edges
    return top, bottom, left, right


def left_over(size: tuple[int, int], part: tuple[int, int, int, int]) -> float:
    """Share of an image's area that lies outside a part (top, bottom, left, right)."""
    top, bottom, left, right = part
    return 1 - (bottom - top) * (right - left) / (size[0] * size[1])
