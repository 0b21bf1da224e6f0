"""Weather. Each takes images (B, C, H, W) in 0..1, the severity from 0, and what is drawn; lengths are pixels at 32×32."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.measures.corruptions import geometry
from kdbench.measures.corruptions.draws import Draws


def snow(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Flakes that fall aslant, in front of a scene that is whitened by those behind."""
    share, whitened = ((0.03, 0.10), (0.045, 0.16), (0.06, 0.22), (0.08, 0.28), (0.10, 0.35))[severity]
    count, _, height, width = images.shape
    # A flake is a pixel at 32×32, and in every larger image as large in relation to it.
    size = max(1.0, geometry.scale(images))
    lit = draws.uniform(count, 1, math.ceil(height / size), math.ceil(width / size))
    flakes = F.relu(lit - (1 - share)) / share
    flakes = F.interpolate(flakes.sqrt(), size=(height, width), mode="bilinear", align_corners=False)
    angle = math.pi / 2 + (draws.uniform(count) - 0.5)  # down, more or less
    along = torch.linspace(-1, 1, max(7, math.ceil(4 * size)), device=images.device) * 1.2 * geometry.scale(images)
    points = torch.stack([torch.outer(angle.cos(), along), torch.outer(angle.sin(), along)], dim=-1)
    flakes = 1.6 * geometry.averaged(flakes, points)
    grey = images.mean(dim=1, keepdim=True)
    pale = torch.maximum(images, 0.5 + 0.5 * grey)
    return (1 - whitened) * images + whitened * pale + flakes


def frost(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Crystals on a window pane, thicker towards the edges: ridges of a fractal, bluish white."""
    seen, covered = ((1.0, 0.25), (0.95, 0.4), (0.9, 0.5), (0.85, 0.6), (0.75, 0.7))[severity]
    channels, height, width = images.shape[1:]
    veins = 1 - (2 * draws.clouds(images, 1.6) - 1).abs()  # a ridge wherever the fractal crosses its middle
    patches = draws.clouds(images, 2.2)
    u, v = (torch.linspace(-1, 1, size, device=images.device).abs() for size in (height, width))
    edge = torch.maximum(u[:, None], v[None, :])
    ice = (veins**8 * (0.4 + 0.6 * patches) + 0.9 * (patches + 0.6 * edge - 0.75).clamp(0, 1)).clamp(0, 1)
    tint = torch.tensor([0.85, 0.93, 1.0] if channels == 3 else [0.93], device=images.device)[:, None, None]
    return seen * images + covered * ice * tint


def fog(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """A fractal cloud in front of the scene, and contrast lost as much as it is dense."""
    density, decay = ((0.2, 2.0), (0.5, 2.0), (0.75, 1.8), (1.0, 1.6), (1.5, 1.5))[severity]
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    cloud = 0.4 + 0.6 * draws.clouds(images, decay)  # thinner here and there, and nowhere gone
    return (images + density * cloud) * brightest / (brightest + density)


def brightness(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Daylight: this much added to the value (of hue, saturation, value)."""
    more = (0.05, 0.10, 0.15, 0.20, 0.30)[severity]
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + more).clamp(max=1)
    return torch.where(value > 0, images * (brighter / value.clamp(min=1e-6)), brighter)
