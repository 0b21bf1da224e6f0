"""Blur. Each takes images (B, C, H, W) in 0..1, the severity from 0, and what is drawn; lengths are pixels at 32×32."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdbench.measures.corruptions import geometry
from kdbench.measures.corruptions.draws import Draws


def defocus_blur(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Blur of a lens out of focus: the mean over a disk of this radius."""
    radius = (0.6, 0.9, 1.2, 1.6, 2.1)[severity] * geometry.scale(images)
    rings = max(8, math.ceil(3 * radius))
    # Rings of equal area, each with as many points: evenly spread over the disk.
    distance = ((torch.arange(rings) + 0.5) / rings).sqrt() * radius
    angle = torch.arange(4 * rings) * (2 * math.pi / (4 * rings))
    points = torch.stack([torch.outer(distance, angle.cos()), torch.outer(distance, angle.sin())], dim=-1)
    return geometry.averaged(images, points.reshape(1, -1, 2).to(images.device))


def glass_blur(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Blur of frosted glass: every pixel from a random place up to this far away, between two slight blurs."""
    reach = (0.6, 0.8, 1.0, 1.3, 1.7)[severity] * geometry.scale(images)
    count, _, height, width = images.shape
    by = (2 * draws.uniform(count, height, width, 2) - 1) * reach
    return geometry.blurred(geometry.displaced(geometry.blurred(images, 0.3 * reach), by), 0.3 * reach)


def motion_blur(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Blur of a moving camera: the mean along a line of this length, in a direction of each image's own."""
    length = (2.0, 3.0, 4.0, 5.0, 6.5)[severity] * geometry.scale(images)
    angle = draws.uniform(len(images)) * math.pi
    steps = max(9, math.ceil(2 * length))
    along = torch.linspace(-length / 2, length / 2, steps, device=images.device)
    points = torch.stack([torch.outer(angle.cos(), along), torch.outer(angle.sin(), along)], dim=-1)
    return geometry.averaged(images, points)


def zoom_blur(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Blur of moving towards something: the mean of the image enlarged by factors from 1 to this."""
    largest = (1.06, 1.11, 1.16, 1.21, 1.26)[severity]
    # So many that the edge moves by half a pixel of 32, or one of the image, from one to the next.
    steps = 3 + math.ceil((largest - 1) / 2 * max(images.shape[-2:]) / max(1.0, geometry.scale(images) / 2))
    total = images.clone()
    for step in range(1, steps):
        total += geometry.zoomed(images, 1 + (largest - 1) * step / (steps - 1))
    return total / steps
