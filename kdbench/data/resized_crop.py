"""Random resized crops: the part of each image that is cut out, and its resizing on the device.

The part is drawn from a number of its own for each image, so that it depends on neither the batch nor the worker.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from kdbench.config.switches import ResizedCrop
from kdbench.pinned import to_device

ATTEMPTS = 10
"""As in torchvision's RandomResizedCrop; then the largest part in the centre with an allowed ratio is taken."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""


def box(number: int, width: int, height: int, crop: ResizedCrop) -> Box:
    """The part of an image that is cut out.

    Args:
        number: decides it.
        width, height: size of the image.
    """
    draw = random.Random(number)  # Python promises that random() gives the same for the same seed in all versions
    log_ratio = math.log(crop.max_ratio)
    for _ in range(ATTEMPTS):
        area = width * height * (crop.min_area + (crop.max_area - crop.min_area) * draw.random())
        ratio = math.exp(log_ratio * (2 * draw.random() - 1))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(draw.random() * (width - w + 1)), int(draw.random() * (height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * crop.max_ratio)))
    h = min(height, max(1, round(width * crop.max_ratio)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resized(images: Tensor, boxes: Sequence[Box]) -> Tensor:
    """Parts of images, resized to the size of the whole images by antialiased linear interpolation.

    Args:
        images: (B, H, W, C) uint8.
        boxes: the part of each.

    Returns:
        (B, H, W, C) uint8.
    """
    _, height, width, _ = images.shape
    edges = to_device(torch.tensor(boxes, dtype=torch.float32), images.device)
    rows = _weights(edges[:, 1], edges[:, 3], height)
    columns = _weights(edges[:, 0], edges[:, 2], width)
    values = torch.einsum("bij,bjkc->bikc", rows, images.float())
    values = torch.einsum("blk,bikc->bilc", columns, values)
    return values.round_().clamp_(0, 255).to(torch.uint8)


def _weights(first: Tensor, last: Tensor, length: int) -> Tensor:
    """(B, length, length): the weights of the pixels of a side in each pixel of the resized part, which sum to 1."""
    scale = (last - first) / length
    places = torch.arange(length, device=first.device, dtype=torch.float32)
    centres = first[:, None] + (places + 0.5) * scale[:, None]
    support = scale.clamp(min=1.0)[:, None, None]
    weights = (1 - (places + 0.5 - centres[..., None]).abs() / support).clamp(min=0)
    inside = (places + 0.5 > first[:, None]) & (places + 0.5 < last[:, None])
    weights = weights * inside[:, None, :]
    return weights / weights.sum(dim=2, keepdim=True)
