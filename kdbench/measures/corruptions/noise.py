"""Noise of single pixels. Each takes images (B, C, H, W) in 0..1, the severity from 0, and what is drawn."""

from __future__ import annotations

from torch import Tensor

from kdbench.measures.corruptions.draws import Draws


def gaussian_noise(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Gaussian noise, as in low light."""
    return with_noise(images, (0.04, 0.06, 0.08, 0.09, 0.10)[severity], draws)


def with_noise(images: Tensor, sigma: float, draws: Draws) -> Tensor:
    """A normal number of standard deviation `sigma` added to every value."""
    return images + sigma * draws.normal(*images.shape)


def shot_noise(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Shot noise of counting photons: a Poisson number with the pixel as its mean, so many photons being white."""
    photons = (500, 250, 100, 75, 50)[severity]
    return draws.poisson(images * photons) / photons


def impulse_noise(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Impulse noise: this share of all values is 0 or 1 instead."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity]
    chance = draws.uniform(*images.shape)
    return images.masked_fill(chance < share / 2, 0).masked_fill(chance > 1 - share / 2, 1)
