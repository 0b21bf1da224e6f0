"""Random erasing: a box of some images is set to the mean.

Zhong, Zheng, Kang, Li and Yang, "Random erasing data augmentation", AAAI 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_AREA, MIN_RATIO = 0.02, 0.3
"""Least share of the area, and least ratio of height to width, of the paper; the largest ratio is 1 over the least."""
ATTEMPTS = 100
"""Boxes that are drawn for an image until one fits, as in the authors' code; then the image stays as it is."""


def draw(count: int, size: tuple[int, int], probability: float, max_area: float, generator: torch.Generator) -> Tensor:
    """Top, left, height and width of a box for each image, (count, 4) int64; height and width are 0 for the others.

    Args:
        size: height and width of the images.
        probability: chance that an image has a box.
        max_area: its largest share of the area.
    """
    height, width = size
    boxes = torch.zeros(count, 4, dtype=torch.int64)
    waiting = (torch.rand(count, generator=generator, dtype=torch.float64) < probability).nonzero().squeeze(1)
    for _ in range(ATTEMPTS):
        if not len(waiting):
            break
        area, ratio, y, x = torch.rand(4, len(waiting), generator=generator, dtype=torch.float64)
        area = height * width * (MIN_AREA + (max_area - MIN_AREA) * area)
        ratio = MIN_RATIO + (1 / MIN_RATIO - MIN_RATIO) * ratio
        h, w = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (h < height) & (w < width)
        drawn = torch.stack([y * (height - h + 1), x * (width - w + 1), h, w], dim=1).long()
        boxes[waiting[fits]] = drawn[fits]
        waiting = waiting[~fits]
    return boxes
