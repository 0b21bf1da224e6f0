"""Fifteen corruptions of images in five severities, after Hendrycks and Dietterich.

"Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019. Written from the paper's
descriptions, without its code and without its photographs of frost; what comes out is of that kind and not CIFAR-10-C itself.

Amplitudes in pixel values are the same for all images; lengths scale with them, and are about those of CIFAR-10-C at 32×32.
All randomness is drawn on the CPU, so that every device corrupts an image in the same way.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdbench.measures.corruptions import blur, digital, noise, weather
from kdbench.measures.corruptions.draws import Draws

SEVERITIES = (1, 2, 3, 4, 5)

_CORRUPTIONS: dict[str, Callable[[Tensor, int, Draws], Tensor]] = {
    each.__name__: each
    for each in (
        noise.gaussian_noise,
        noise.shot_noise,
        noise.impulse_noise,
        blur.defocus_blur,
        blur.glass_blur,
        blur.motion_blur,
        blur.zoom_blur,
        weather.snow,
        weather.frost,
        weather.fog,
        weather.brightness,
        digital.contrast,
        digital.elastic_transform,
        digital.pixelate,
        digital.jpeg_compression,
    )
}

NAMES = tuple(_CORRUPTIONS)
"""The corruptions, in the paper's order: noise, blur, weather, digital."""


def corrupt(images: Tensor, name: str, severity: int, generator: torch.Generator) -> Tensor:
    """Images as they look after a corruption.

    Args:
        images: (B, C, H, W) float32 in 0..1, on any device; at least 8 pixels high and wide.
        name: one of `NAMES`.
        severity: 1 to 5.
        generator: on the CPU; it alone decides what is random.

    Returns:
        The same shape in 0..1, in steps of 1/255, as in 8-bit files.
    """
    draws = Draws(generator, images.device)
    return in_8_bits(_CORRUPTIONS[name](images, SEVERITIES.index(severity), draws))


def with_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) in 0..1 with Gaussian noise of standard deviation `sigma` added, clipped and rounded to 8 bits."""
    return in_8_bits(noise.with_noise(images, sigma, Draws(generator, images.device)))


def in_8_bits(images: Tensor) -> Tensor:
    """Images clipped to 0..1 and rounded to 8 bits."""
    return images.clamp(0, 1).mul_(255).round_().div_(255)
